// One tier's kernels as a table. A tier file includes its vector header, then this, and names the table.
#pragma once

#include "attention.h"
#include "attention_half.h"
#include "experts.h"
#include "heads.h"
#include "linear.h"
#include "peak.h"
#include "pooling.h"
#include "rows.h"
#include "scores.h"
#include "self_extend.h"

namespace longspan {
namespace {

constexpr Kernels make_kernels(const char* name) {
  return {name, kTileColumns < kLine ? kLine : kTileColumns, embed, norm, linear, qkv, left_bytes, finish_heads, attention, attention_bytes, self_extend, choose,
          softmax, add_scaled, pool, combine, normalize, scores, hamming, peak};
}

}  // namespace
}  // namespace longspan
