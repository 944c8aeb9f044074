"""The functions of the long short-term memory in the NumPy tutorial "Sentiment Analysis on notable speeches of the last decade", unchanged
but for the decorator, and one pass over a text made of them.

https://numpy.org/numpy-tutorials/tutorial-nlp-from-scratch/. Random vectors stand for embedded words.
"""

import numpy as np

import xlc

rng = np.random.default_rng(0)


@xlc.jit
def sigmoid(x):
    n = np.exp(np.fmin(x, 0))
    d = (1 + np.exp(-np.abs(x)))
    return n / d


@xlc.jit
def fp_forget_gate(concat, parameters):
    ft = sigmoid(np.dot(parameters['Wf'], concat)
                 + parameters['bf'])
    return ft


@xlc.jit
def fp_input_gate(concat, parameters):
    it = sigmoid(np.dot(parameters['Wi'], concat)
                 + parameters['bi'])
    cmt = np.tanh(np.dot(parameters['Wcm'], concat)
                  + parameters['bcm'])
    return it, cmt


@xlc.jit
def fp_output_gate(concat, next_cs, parameters):
    ot = sigmoid(np.dot(parameters['Wo'], concat)
                 + parameters['bo'])
    next_hs = ot * np.tanh(next_cs)
    return ot, next_hs


@xlc.jit
def fp_fc_layer(last_hs, parameters):
    z2 = (np.dot(parameters['W2'], last_hs)
          + parameters['b2'])
    a2 = sigmoid(z2)
    return a2


@xlc.jit
def forward_prop(X_vec, parameters):
    hidden_dim = parameters['Wf'].shape[0]
    time_steps = len(X_vec)
    prev_hs = np.zeros((hidden_dim, 1))
    prev_cs = np.zeros(prev_hs.shape)
    for t in range(time_steps):
        xt = X_vec[t]
        concat = np.vstack((prev_hs, xt))
        ft = fp_forget_gate(concat, parameters)
        it, cmt = fp_input_gate(concat, parameters)
        # Calculate the cell state, then the output
        next_cs = (ft * prev_cs) + (it * cmt)
        ot, next_hs = fp_output_gate(concat, next_cs, parameters)
        prev_hs = next_hs
        prev_cs = next_cs
    return fp_fc_layer(next_hs, parameters)


def initialise_params(hidden_dim, input_dim):
    shapes = {"Wf": (hidden_dim, hidden_dim + input_dim), "Wi": (hidden_dim, hidden_dim + input_dim),
              "Wcm": (hidden_dim, hidden_dim + input_dim),
              "Wo": (hidden_dim, hidden_dim + input_dim), "W2": (1, hidden_dim)}
    parameters = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    return parameters | {"bf": np.zeros((hidden_dim, 1)), "bi": np.zeros((hidden_dim, 1)), "bcm": np.zeros((hidden_dim, 1)),
                         "bo": np.zeros((hidden_dim, 1)), "b2": np.zeros((1, 1))}


def main():
    parameters = initialise_params(64, 50)
    concat, state = rng.normal(size=(114, 1)), rng.normal(size=(64, 1))
    for function, args in [(sigmoid, (concat,)), (fp_forget_gate, (concat, parameters)), (fp_input_gate, (concat, parameters)),
                           (fp_output_gate, (concat, state, parameters)), (fp_fc_layer, (state, parameters))]:
        found, expected = function(*args), function.__wrapped__(*args)
        assert np.allclose(np.stack(found), np.stack(expected), rtol=1e-12, atol=0)
    text = rng.normal(size=(12, 50, 1))
    found, expected = forward_prop(text, parameters), forward_prop.__wrapped__(text, parameters)
    program = forward_prop.compile(text, parameters)
    print(f"probability {found[0, 0]:.12f} (NumPy: {expected[0, 0]:.12f}); {len(text)} words in {len(program.kernels)} kernel launches")
    assert np.allclose(found, expected, rtol=1e-12)


if __name__ == "__main__":
    main()
