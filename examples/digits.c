/* Classifies the images of a file with the library that examples/demo.py exports; no Python, no framework.

     digits <file> <library>      file: int64 count, then count images of 64 floats, then count labels of int64

   Prints the accuracy, the time per image, the size of the library and the peak resident memory. */
#define _POSIX_C_SOURCE 200809L
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* KiB, of this program alone (getrusage counts what the process was before exec, too). */
static long peak_resident(void) {
  char line[256];
  long kib = -1;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status))
    if (!strncmp(line, "VmHWM:", 6)) kib = strtol(line + 6, NULL, 10);
  if (status) fclose(status);
  return kib;
}

int main(int argc, char **argv) {
  enum { ROUNDS = 20 };
  int64_t count;
  FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
  if (!file || fread(&count, sizeof count, 1, file) != 1) {
    fprintf(stderr, "usage: digits <file> <library>\n");
    return 2;
  }
  float *images = malloc((size_t)count * 64 * sizeof *images);
  int64_t *labels = malloc((size_t)count * sizeof *labels);
  double *seconds = malloc((size_t)count * ROUNDS * sizeof *seconds);
  size_t bytes = digits_workspace_size();
  void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  if (!images || !labels || !seconds || !workspace) return 3;
  if (fread(images, 64 * sizeof *images, (size_t)count, file) != (size_t)count ||
      fread(labels, sizeof *labels, (size_t)count, file) != (size_t)count) {
    fprintf(stderr, "%s is too short\n", argv[1]);
    return 2;
  }
  fclose(file);

  int64_t right = 0;
  for (int round = 0; round < ROUNDS; round++)
    for (int64_t i = 0; i < count; i++) {
      int64_t label = -1;
      double start = now();
      if (digits(images + 64 * i, &label, workspace)) return 4;
      seconds[round * count + i] = now() - start;
      if (round == 0) right += label == labels[i];
    }
  qsort(seconds, (size_t)count * ROUNDS, sizeof *seconds, ascending);

  struct stat library;
  if (stat(argv[2], &library)) memset(&library, 0, sizeof library);
  printf("accuracy in C       %.2f%%  (%lld of %lld test images)\n", 100.0 * (double)right / (double)count, (long long)right, (long long)count);
  printf("latency             %.2f us per image (median of %lld calls, one thread)\n", 1e6 * seconds[count * ROUNDS / 2], (long long)count * ROUNDS);
  printf("size of library     %lld bytes\n", (long long)library.st_size);
  printf("workspace           %zu bytes\n", bytes);
  printf("peak resident       %ld KiB (the whole C process)\n", peak_resident());
  free(images);
  free(labels);
  free(seconds);
  free(workspace);
  return 0;
}
