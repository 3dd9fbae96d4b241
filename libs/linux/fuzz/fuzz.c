/* Mutates a valid plan and parses it, in a buffer of exactly its size so that the sanitizers see every step too far. */
#include "../native/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint32_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

static void put(unsigned char *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (unsigned char)(value >> (8 * i));
}

int main(int argc, char **argv) {
  static unsigned char seed[PLAN_BYTES_MAX];
  static const uint32_t hostile[] = {0, 1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff7};
  if (argc != 4) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (file == NULL) return 2;
  size_t length = fread(seed, 1, sizeof seed, file);
  fclose(file);
  state = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252ull;
  unsigned long accepted = 0, touched = 0;
  for (long round = strtol(argv[3], NULL, 10); round > 0; round--) {
    size_t size = next() % 4 == 0 ? next() % (length + 1) : length;
    unsigned char *bytes = malloc(size + 1);
    if (bytes == NULL) return 2;
    unsigned char *exact = realloc(bytes, size ? size : 1);
    if (exact == NULL) return 2;
    memcpy(exact, seed, size);
    for (uint32_t hits = next() % 4; hits > 0 && size > 0; hits--) {
      size_t place = next() % size;
      if (next() % 2 == 0) exact[place] ^= (unsigned char)(1u << (next() % 8));
      else if (place + 4 <= size) put(exact + place, hostile[next() % (sizeof hostile / sizeof *hostile)]);
    }
    if (size >= 16 && next() % 2 == 0) put(exact + 12, (uint32_t)size);
    struct plan plan;
    if (plan_parse(&plan, exact, size) == NULL) {
      accepted++;
      for (size_t i = 0; i < plan.count; i++) {
        for (size_t f = 0; f < PLAN_FIELDS_MAX; f++) {
          const struct field *field = &plan.records[i].f[f];
          int blob = (plan.records[i].op == OP_SECCOMP || plan.records[i].op == OP_CGROUP_DEVICES) && f == 1;
          if (blob) {
            for (uint64_t at = 0; at < field->number; at++) touched += (unsigned char)field->text[at];
          } else if (field->text != NULL) {
            touched += strlen(field->text);
          }
        }
      }
      free((void *)plan.records);
    }
    free(exact);
  }
  printf("accepted=%lu bytes=%lu\n", accepted, touched);
  return 0;
}
