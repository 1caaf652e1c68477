// One tier's kernels as a table. A tier file includes its vector header, then this, and names the table.
#pragma once

#include "attention_choice.h"
#include "experts.h"
#include "heads.h"
#include "linear.h"
#include "peak.h"
#include "pooling.h"
#include "quantize.h"
#include "rows.h"
#include "scores.h"
#include "self_extend.h"

namespace longspan {
namespace {

constexpr Kernels make_kernels(const char* name) {
  return {
      .name = name,
      .tile_columns = kBestColumns,
      .embed = embed,
      .norm = norm,
      .linear = linear,
      .qkv = qkv,
      .how = how,
      .left_bytes = left_bytes,
      .finish_heads = finish_heads,
      .attention = attention,
      .attention_bytes = attention_bytes,
      .int8_attention_is_faster = kInt8AttentionIsFaster,
      .self_extend = self_extend,
      .choose = choose,
      .softmax = softmax,
      .add_scaled = add_scaled,
      .pool = pool,
      .combine = combine,
      .normalize = normalize,
      .tanh_quantize = tanh_quantize,
      .quantize_bytes = quantize_bytes,
      .quantize_bits = quantize_bits,
      .scores = scores,
      .hamming = hamming,
      .peak = peak,
  };
}

}  // namespace
}  // namespace longspan
