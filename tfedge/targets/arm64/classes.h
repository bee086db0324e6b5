/* What an AArch64 instruction does, from its word.
 *
 * Encodings: Arm Architecture Reference Manual for A-profile, "Top-level encodings for A64".
 * Every instruction counts in TOTAL; a load or store of any register also in LOADS or STORES (an
 * atomic in both), its bytes in BYTES; other SIMD and floating-point instructions in NEON, and
 * those of them that multiply for a kernel also in DOT, FMLA or SMLAL; branches and system
 * instructions in BRANCHES. What is left over is integer arithmetic.
 * Needs nothing but a compiler for a system of 64-bit longs.
 */
typedef unsigned int word_t;
typedef unsigned long count_t;

enum { TOTAL, LOADS, STORES, NEON, DOT, FMLA, SMLAL, BRANCHES, BYTES, CLASSES };

static int tfe_is(word_t word, word_t mask, word_t value) { return (word & mask) == value; }

static void tfe_memory(count_t *counts, int loads, int stores, int bytes) {
  counts[LOADS] += loads;
  counts[STORES] += stores;
  counts[BYTES] += bytes;
}

/* LD1..LD4, ST1..ST4 of whole registers or of single lanes. */
static void tfe_structures(word_t word, count_t *counts) {
  int load = word >> 22 & 1, bytes;
  int full = word >> 30 & 1 ? 16 : 8;
  if (word >> 24 & 1) {
    int opcode = word >> 13 & 7, size = word >> 10 & 3, scale = opcode >> 1;
    int elements = ((opcode & 1) << 1 | (word >> 21 & 1)) + 1;
    if (scale == 3) scale = size; /* one lane, repeated in all */
    else if (scale == 2 && size & 1) scale = 3;
    bytes = elements << scale;
  } else {
    static const char registers[16] = {4, 0, 4, 0, 3, 0, 3, 1, 2, 0, 2};
    bytes = registers[word >> 12 & 15] * full;
  }
  tfe_memory(counts, load, !load, bytes);
}

/* Exclusive, ordered, compare and swap. */
static void tfe_ordered(word_t word, count_t *counts) {
  int size = word >> 30, load = word >> 22 & 1, o2 = word >> 23 & 1, o1 = word >> 21 & 1;
  int pair = o1 && !o2;
  if (o1 && (o2 || !(word >> 31))) { /* CAS; CASP where o2 is 0 */
    int bytes = pair ? 8 << size : 1 << size;
    tfe_memory(counts, 1, 1, 2 * bytes);
  } else {
    tfe_memory(counts, load, !load, (1 << size) << pair);
  }
}

/* One register: immediate or register offset, and atomics. */
static void tfe_single(word_t word, count_t *counts) {
  int size = word >> 30, opc = word >> 22 & 3, vector = word >> 26 & 1;
  if (vector) {
    tfe_memory(counts, opc & 1, !(opc & 1), opc & 2 ? 16 : 1 << size);
  } else if (tfe_is(word, 0x01200C00, 0x00200000)) { /* atomics; LDAPR only loads */
    int store = !tfe_is(word, 0x0000F000, 0x0000C000);
    tfe_memory(counts, 1, store, (1 << size) << store);
  } else if (tfe_is(word, 0x01200400, 0x00200400)) { /* LDRAA, LDRAB */
    tfe_memory(counts, 1, 0, 8);
  } else if (!(size == 3 && opc == 2)) { /* not PRFM */
    tfe_memory(counts, opc != 0, opc == 0, 1 << size);
  }
}

static void tfe_load_store(word_t word, count_t *counts) {
  int vector = word >> 26 & 1, opc = word >> 30;
  switch (word >> 28 & 3) {
    case 0:
      if (vector) tfe_structures(word, counts);
      else tfe_ordered(word, counts);
      return;
    case 1:
      if (word >> 24 & 1) { /* LDAPUR and STLUR */
        int load = (word >> 22 & 3) != 0;
        tfe_memory(counts, load, !load, 1 << opc);
      } else if (vector || opc != 3) { /* literal; not PRFM */
        tfe_memory(counts, 1, 0, vector ? 4 << opc : opc == 1 ? 8 : 4);
      }
      return;
    case 2: { /* pair */
      int load = word >> 22 & 1;
      tfe_memory(counts, load, !load, 2 * (vector ? 4 << opc : opc == 2 ? 8 : 4));
      return;
    }
    default:
      tfe_single(word, counts);
  }
}

/* SDOT, UDOT, USDOT, SUDOT, and the matrix products SMMLA, UMMLA, USMMLA. */
static int tfe_dot(word_t word) {
  return tfe_is(word, 0x9FE0FC00, 0x0E809400) || tfe_is(word, 0xBFE0FC00, 0x0E809C00) ||
         tfe_is(word, 0x9FC0F400, 0x0F80E000) || tfe_is(word, 0xBF40F400, 0x0F00F000) ||
         tfe_is(word, 0xDFE0FC00, 0x4E80A400) || tfe_is(word, 0xFFE0FC00, 0x4E80AC00);
}

/* FMLA and FMLS of vectors, also by element, single, double and half. */
static int tfe_fmla(word_t word) {
  return tfe_is(word, 0xBF20FC00, 0x0E20CC00) || tfe_is(word, 0xBF60FC00, 0x0E400C00) ||
         tfe_is(word, 0xBF80B400, 0x0F801000) || tfe_is(word, 0xBFC0B400, 0x0F001000);
}

/* SMLAL, UMLAL, SMULL, UMULL, also of the upper halves and by element. */
static int tfe_smlal(word_t word) {
  return tfe_is(word, 0x9F20BC00, 0x0E208000) || tfe_is(word, 0x9F007400, 0x0F002000);
}

static void tfe_classify(word_t word, count_t *counts) {
  int group = word >> 25 & 15;
  counts[TOTAL]++;
  if ((group & 5) == 4) {
    tfe_load_store(word, counts);
  } else if ((group & 14) == 10) {
    counts[BRANCHES]++;
  } else if ((group & 7) == 7) {
    counts[NEON]++;
    if (tfe_dot(word)) counts[DOT]++;
    else if (tfe_fmla(word)) counts[FMLA]++;
    else if (tfe_smlal(word)) counts[SMLAL]++;
  }
}
