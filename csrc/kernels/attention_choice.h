// Which attention a unit of work is done by.
#pragma once

#include "attention.h"
#include "attention_bf16.h"
#include "attention_int8.h"

namespace longspan {
namespace {

// AMX multiplies pairs so fast that what lies between the products decides, and that is more for bytes.
#ifdef LONGSPAN_AMX
constexpr bool kInt8AttentionIsFaster = false;
#else
constexpr bool kInt8AttentionIsFaster = kDot4;
#endif

void attention(const AttentionArgs& args, long head, long begin, long end, long query0, long query1, float* scratch) {
  if (args.int8) return int8_attention(args, head, begin, end, query0, query1, scratch);
#ifdef LONGSPAN_DOT2
  if (args.q.bf16) return bf16_attention(args, head, begin, end, query0, query1, scratch);
#endif
  widened_attention(args, head, begin, end, query0, query1, scratch);
}

long attention_bytes(long head_size, bool bf16, bool int8) {
  if (int8) return Int8Space(head_size).bytes();
#ifdef LONGSPAN_DOT2
  if (bf16) return Bf16Space(head_size).bytes();
#endif
  return widened_attention_floats(head_size, bf16) * (long)sizeof(float);
}

}  // namespace
}  // namespace longspan
