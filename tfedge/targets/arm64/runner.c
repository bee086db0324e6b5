/* Runs a TFLite file with LiteRT's C functions inside the emulator, one thread, XNNPACK on.
 *
 *   runner LIBRARY MODEL INPUTS OUTPUTS RUNS PROFILED COUNTER
 *
 * INPUTS holds the inputs of one run after another, each in the order of the file's signature;
 * where they end, they begin again. OUTPUTS gets the outputs of all runs. Each run is marked
 * before and after (mix.c). With PROFILED 1 one more run follows under the runtime's profiler,
 * whose clock is this program's own: it gives the number of instructions so far, as microseconds.
 * Standard output says what was found, a line each, texts as hexadecimal bytes:
 *   input NAME BYTES | output NAME BYTES SIZE,SIZE,... | event TYPE INDEX SUBGRAPH START LENGTH TAG
 * Exit status: 2 wrong use or an unusable library, 3 a failed call, 4 inputs of the wrong size.
 *
 * Functions and structures are those of LiteRT 2.3, litert/c; the rest are the C library's.
 */
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
typedef unsigned long size_t;
typedef void *handle;
typedef struct FILE FILE;
extern FILE *stdout, *stderr;

void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);
FILE *fopen(const char *, const char *);
size_t fread(void *, size_t, size_t, FILE *);
size_t fwrite(const void *, size_t, size_t, FILE *);
int fclose(FILE *);
void rewind(FILE *);
int printf(const char *, ...);
int fprintf(FILE *, const char *, ...);
int fflush(FILE *);
void exit(int);
void *calloc(size_t, size_t);
void free(void *);
char *strdup(const char *);
int atoi(const char *);
int open(const char *, int, ...);
void *mmap(void *, size_t, int, int, int, long);
long syscall(long, ...);
void *memcpy(void *, const void *, size_t);

enum { MARK = 10007, CLOCK = 10008, CLOCK_GETTIME = 113, CLOCK_ONCE = 1, BEFORE = 1000000, AFTER = 2000000 };
enum { CPU = 1, READ = 0, WRITE = 1, NOW = 2, PAGE = 4096, SHARED = 1, MOST_SIZES = 8 };

typedef struct {
  uint32_t rank; /* 7 bits; bit 7 says that strides are given */
  int32_t sizes[MOST_SIZES];
  uint32_t strides[MOST_SIZES];
} layout;

typedef struct {
  int32_t element;
  layout sizes;
} tensor_type;

typedef struct {
  const char *tag;
  int32_t type;
  uint64_t start, length;
  size_t memory[6];
  uint64_t index, subgraph;
  int32_t source;
} event;

typedef struct {
  handle buffer;
  size_t bytes;
} end;

static void *library;
static volatile uint64_t *counter;

struct seconds {
  long whole, nano;
};

/* Stands before the C library's, also for the runtime: an instruction is a microsecond. */
int clock_gettime(int clock, struct seconds *time) {
  if (!counter) return syscall(CLOCK_GETTIME, clock, time);
  syscall(CLOCK);
  time->whole = *counter / 1000000;
  time->nano = *counter % 1000000 * 1000;
  return 0;
}

static void *function(const char *name) {
  void *found = dlsym(library, name);
  if (!found) {
    fprintf(stderr, "the library has no %s\n", name);
    exit(2);
  }
  return found;
}

static void check(const char *name, int status) {
  if (status) {
    fflush(stdout);
    fprintf(stderr, "%s failed with status %d\n", name, status);
    exit(3);
  }
}

/* CALL(Name, (types), values...) */
#define CALL(name, types, ...) \
  check("LiteRt" #name, ((int(*) types)function("LiteRt" #name))(__VA_ARGS__))

static void add_option(handle options, const char *key, const char *text) {
  handle option;
  CALL(CreateOpaqueOptions, (const char *, void *, void (*)(void *), handle *), key, strdup(text),
       free, &option);
  CALL(AddOpaqueOptions, (handle, handle), options, option);
}

static handle compile(handle environment, handle model, int profiled) {
  handle options, compiled;
  CALL(CreateOptions, (handle *), &options);
  CALL(SetOptionsHardwareAccelerators, (handle, int), options, CPU);
  if (profiled) add_option(options, "runtime_options_string", "enable_profiling = true\n");
  add_option(options, "xnnpack", "num_threads = 1\n");
  CALL(CreateCompiledModel, (handle, handle, handle, handle *), environment, model, options,
       &compiled);
  return compiled;
}

static void say_text(const char *text) {
  const unsigned char *c = (const unsigned char *)(text ? text : "");
  printf("=");
  for (; *c; c++) printf("%02x", *c);
}

static end make_end(handle environment, const tensor_type *type, handle needs) {
  end made;
  CALL(CreateManagedTensorBufferFromRequirements,
       (handle, const tensor_type *, handle, handle *), environment, type, needs, &made.buffer);
  CALL(GetTensorBufferPackedSize, (handle, size_t *), made.buffer, &made.bytes);
  return made;
}

static end *inputs(handle environment, handle compiled, handle signature, size_t *count) {
  end *made;
  size_t i;
  CALL(GetNumSignatureInputs, (handle, size_t *), signature, count);
  made = calloc(*count + 1, sizeof *made);
  for (i = 0; i < *count; i++) {
    const char *name;
    tensor_type type;
    handle tensor, needs;
    CALL(GetSignatureInputName, (handle, size_t, const char **), signature, i, &name);
    CALL(GetSignatureInputTensorByIndex, (handle, size_t, handle *), signature, i, &tensor);
    CALL(GetRankedTensorType, (handle, tensor_type *), tensor, &type);
    CALL(GetCompiledModelInputTensorLayout, (handle, size_t, size_t, layout *), compiled, 0, i,
         &type.sizes);
    CALL(GetCompiledModelInputBufferRequirements, (handle, size_t, size_t, handle *), compiled, 0,
         i, &needs);
    made[i] = make_end(environment, &type, needs);
    printf("input ");
    say_text(name);
    printf(" %lu\n", made[i].bytes);
  }
  return made;
}

static end *outputs(handle environment, handle compiled, handle signature, size_t *count) {
  end *made;
  layout *layouts;
  size_t i;
  uint32_t k;
  CALL(GetNumSignatureOutputs, (handle, size_t *), signature, count);
  made = calloc(*count + 1, sizeof *made);
  layouts = calloc(*count + 1, sizeof *layouts);
  CALL(GetCompiledModelOutputTensorLayouts, (handle, size_t, size_t, layout *, _Bool), compiled, 0,
       *count, layouts, 1);
  for (i = 0; i < *count; i++) {
    const char *name;
    tensor_type type;
    handle tensor, needs;
    CALL(GetSignatureOutputName, (handle, size_t, const char **), signature, i, &name);
    CALL(GetSignatureOutputTensorByIndex, (handle, size_t, handle *), signature, i, &tensor);
    CALL(GetRankedTensorType, (handle, tensor_type *), tensor, &type);
    type.sizes = layouts[i];
    CALL(GetCompiledModelOutputBufferRequirements, (handle, size_t, size_t, handle *), compiled, 0,
         i, &needs);
    made[i] = make_end(environment, &type, needs);
    printf("output ");
    say_text(name);
    printf(" %lu ", made[i].bytes);
    for (k = 0; k < (type.sizes.rank & 127) && k < MOST_SIZES; k++)
      printf("%s%d", k ? "," : "", type.sizes.sizes[k]);
    printf("\n");
  }
  return made;
}

static void fill(end *ends, size_t count, FILE *file) {
  size_t i;
  for (i = 0; i < count; i++) {
    void *memory;
    CALL(LockTensorBuffer, (handle, void **, int), ends[i].buffer, &memory, WRITE);
    if (fread(memory, 1, ends[i].bytes, file) != ends[i].bytes) {
      if (i) exit(4);
      rewind(file);
      if (fread(memory, 1, ends[i].bytes, file) != ends[i].bytes) exit(4);
    }
    CALL(UnlockTensorBuffer, (handle), ends[i].buffer);
  }
}

static void keep(end *ends, size_t count, FILE *file) {
  size_t i;
  for (i = 0; i < count; i++) {
    void *memory;
    CALL(LockTensorBuffer, (handle, void **, int), ends[i].buffer, &memory, READ);
    if (fwrite(memory, 1, ends[i].bytes, file) != ends[i].bytes) exit(3);
    CALL(UnlockTensorBuffer, (handle), ends[i].buffer);
  }
}

static void run(handle compiled, size_t ins, handle *in, size_t outs, handle *out) {
  CALL(RunCompiledModel, (handle, size_t, size_t, handle *, size_t, handle *), compiled, 0, ins, in,
       outs, out);
}

static void say_events(handle profiler) {
  int i, count = 0;
  event *events;
  CALL(GetNumProfilerEvents, (handle, int *), profiler, &count);
  events = calloc(count + 1, sizeof *events);
  CALL(GetProfilerEvents, (handle, int, event *), profiler, count, events);
  for (i = 0; i < count; i++) {
    printf("event %d %lu %lu %lu %lu ", events[i].type, events[i].index, events[i].subgraph,
           events[i].start, events[i].length);
    say_text(events[i].tag);
    printf("\n");
  }
}

int main(int count, char **words) {
  handle environment, model, compiled, signature, profiler;
  size_t ins, outs, i;
  end *in, *out;
  handle *in_buffers, *out_buffers;
  FILE *given, *made;
  int k, runs, profiled, shared;
  void *memory;
  struct seconds time;
  if (count != 8) return 2;
  runs = atoi(words[5]);
  profiled = atoi(words[6]);
  shared = open(words[7], READ);
  memory = mmap(0, PAGE, 1, SHARED, shared, 0);
  library = dlopen(words[1], NOW);
  given = fopen(words[3], "rb");
  made = fopen(words[4], "wb");
  if (!library || !given || !made || shared < 0 || memory == (void *)-1) {
    fprintf(stderr, "%s\n", library ? "a file cannot be opened" : dlerror());
    return 2;
  }
  CALL(CreateEnvironment, (int, const void *, handle *), 0, 0, &environment);
  CALL(CreateModelFromFile, (handle, const char *, handle *), environment, words[2], &model);
  CALL(GetModelSignature, (handle, size_t, handle *), model, 0, &signature);
  compiled = compile(environment, model, profiled);
  in = inputs(environment, compiled, signature, &ins);
  out = outputs(environment, compiled, signature, &outs);
  in_buffers = calloc(ins + 1, sizeof *in_buffers);
  out_buffers = calloc(outs + 1, sizeof *out_buffers);
  for (i = 0; i < ins; i++) in_buffers[i] = in[i].buffer;
  for (i = 0; i < outs; i++) out_buffers[i] = out[i].buffer;
  for (k = 0; k < runs; k++) {
    fill(in, ins, given);
    syscall(MARK, BEFORE + k);
    run(compiled, ins, in_buffers, outs, out_buffers);
    syscall(MARK, AFTER + k);
    keep(out, outs, made);
  }
  if (profiled) {
    CALL(CompiledModelGetProfiler, (handle, handle *), compiled, &profiler);
    fill(in, ins, given);
    counter = memory;
    clock_gettime(CLOCK_ONCE, &time); /* twice: what a look at the clock takes itself */
    clock_gettime(CLOCK_ONCE, &time);
    CALL(StartProfiler, (handle), profiler);
    run(compiled, ins, in_buffers, outs, out_buffers);
    CALL(StopProfiler, (handle), profiler);
    counter = 0;
    say_events(profiler);
  }
  if (fclose(made) || fflush(stdout)) return 3;
  return 0;
}
