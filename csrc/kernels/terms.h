// What a register tile adds up: one word of the left operand, spread over a vector, times a line of the right one.
#pragma once

#include "table.h"
#include "vector.h"

namespace longspan {
namespace {

struct Float32Terms {
  using Word = float;
  using Sum = V;
  static constexpr int kWords = 1;                // of the left operand, for each line of the right one
  static constexpr long kLines = kBlock;          // lines whose terms make one chain
  static V spread(float word) { return broadcast(word); }
  static V line(const float* p, int) { return load(p); }
  static V add(V sum, V left, V right) { return fma(left, right, sum); }
};

// bfloat16 weights where no instruction multiplies them: they are widened, and the left operand is float32.
struct WidenedTerms : Float32Terms {
  static constexpr int kWords = 2;
  static constexpr long kLines = kBlock / 2;
  static V line(const float* p, int word) {
    const VI pair = (VI)load(p);
    return (V)(word ? pair & (int)0xffff0000 : pair << 16);
  }
};

// Words that one instruction multiplies as they are.
struct WordTerms {
  using Word = int32_t;
  static constexpr int kWords = 1;
  static VI spread(int32_t word) { return word - VI{}; }
  static VI line(const float* p, int) { return (VI)load(p); }
};

struct PairTerms : WordTerms {
  using Sum = V;
  static constexpr long kLines = kBlock / 2;
#ifdef LONGSPAN_DOT2
  static V add(V sum, VI left, VI right) { return dot2(sum, left, right); }
#endif
};

// Unsigned times signed bytes. Integer sums are exact, so that their order does not matter.
struct Int8Terms : WordTerms {
  using Sum = VI;
  static constexpr long kLines = 1L << 40;
  static VI add(VI sum, VI left, VI right) { return dot4(sum, left, right); }
};

#ifdef LONGSPAN_DOT4
using CodeTerms = Int8Terms;
#else
// The left operand is words already, for each four codes the even and then the odd ones.
struct CodeTerms : Int8Terms {
  static constexpr int kWords = 2;
  static VI line(const float* p, int word) {
    typedef int16_t Words __attribute__((vector_size(W * 4)));
    const Words bytes = (Words)load(p);
    return (VI)(word ? bytes >> 8 : bytes << 8 >> 8);
  }
  static VI add(VI sum, VI left, VI right) { return add_words(sum, left, right); }
};
#endif

template <bool Native>
struct Bfloat16 {
  using Terms = WidenedTerms;
};
template <>
struct Bfloat16<true> {
  using Terms = PairTerms;
};
using Bfloat16Terms = Bfloat16<kDot2>::Terms;

}  // namespace
}  // namespace longspan
