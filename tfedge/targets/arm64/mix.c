/* Counts the AArch64 instructions that QEMU's user mode runs, by class, and logs them on request.
 *
 * A plugin for QEMU's plugin interface, version 1 (QEMU 4.2 to 8.2). The program under test asks
 * by system calls that Linux does not have:
 *   MARK a   logs "mark a" with all counts so far;
 *   CLOCK    logs "clock n" likewise, and stores the number of instructions in the shared file.
 * Arguments: out=FILE (the log), counter=FILE (8 bytes, native order, written on CLOCK).
 * The declarations below are those of qemu-plugin.h, of which nothing else is needed.
 */
#include "classes.h"

typedef unsigned long size_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef uint64_t plugin_id;
typedef struct FILE FILE;
struct block;
struct instruction;
typedef struct {
  const char *target_name;
  struct { int min, cur; } version;
} plugin_info;

FILE *fopen(const char *, const char *);
int fprintf(FILE *, const char *, ...);
int fclose(FILE *);
int open(const char *, int, ...);
int ftruncate(int, long);
void *mmap(void *, size_t, int, int, int, long);
int strcmp(const char *, const char *);
int strncmp(const char *, const char *, size_t);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const void *qemu_plugin_insn_data(const struct instruction *);

enum { MARK = 10007, CLOCK = 10008, ADD = 0, READ_WRITE = 2, CREATE = 0100 };
enum { PAGE = 4096, PROTECTION = 3, SHARED = 1 };

int qemu_plugin_version = 1;

static count_t counts[CLASSES];
static uint64_t *counter;
static uint64_t clocks;
static FILE *out;

/* A block is counted when it is entered, as a whole: QEMU leaves one only at its end. */
static void translated(plugin_id id, struct block *block) {
  count_t own[CLASSES];
  size_t i, length = qemu_plugin_tb_n_insns(block);
  memset(own, 0, sizeof own);
  for (i = 0; i < length; i++) {
    word_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
    tfe_classify(word, own);
  }
  for (i = 0; i < CLASSES; i++)
    if (own[i]) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counts[i], own[i]);
}

static void log_counts(const char *event, uint64_t number) {
  int i;
  fprintf(out, "%s %lu", event, number);
  for (i = 0; i < CLASSES; i++) fprintf(out, " %lu", counts[i]);
  fprintf(out, "\n");
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  if (number == MARK) {
    log_counts("mark", a);
  } else if (number == CLOCK) {
    if (counter) *counter = counts[TOTAL];
    log_counts("clock", clocks++);
  }
}

static void ended(plugin_id id, void *data) {
  log_counts("exit", 0);
  fclose(out);
}

static uint64_t *shared(const char *path) {
  int file = open(path, READ_WRITE | CREATE, 0600);
  void *memory;
  if (file < 0 || ftruncate(file, PAGE)) return 0;
  memory = mmap(0, PAGE, PROTECTION, SHARED, file, 0);
  return memory == (void *)-1 ? 0 : memory;
}

int qemu_plugin_install(plugin_id id, const plugin_info *info, int count, char **arguments) {
  int i;
  for (i = 0; i < count; i++) {
    if (!strncmp(arguments[i], "out=", 4)) out = fopen(arguments[i] + 4, "w");
    else if (!strncmp(arguments[i], "counter=", 8)) counter = shared(arguments[i] + 8);
    else return -1;
  }
  if (!out || !counter || strcmp(info->target_name, "aarch64")) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, 0);
  return 0;
}
