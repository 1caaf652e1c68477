// The tail: vector rows. Blocks of vectors are independent, so each thread runs the whole program on its own blocks.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "executor.h"
#include "threads.h"

namespace longspan {

namespace {

// One block of vectors on its way through the tail.
struct Block {
  const Program& program;
  const std::vector<Partials>& partials;
  const std::vector<const int64_t*>& cu_vectors;
  const Layout& layout;
  char* arena;
  int output;  // the buffer that lies in the caller's array
  float* vectors;
  long first, rows;

  const Kernels& kernels() const { return *program.kernels; }

  Matrix matrix(int buffer) const {
    const long width = program.width(buffer);
    if (buffer == output) return {vectors + first * width, width};
    return {reinterpret_cast<float*>(arena + layout.offsets[buffer]), width};
  }
  Matrix optional(int buffer) const { return buffer == kNoBuffer ? Matrix{nullptr, 0} : matrix(buffer); }

  void run(const Combine& op) const {
    const Partials& from = partials[op.index];
    const Matrix out = matrix(op.out);
    const long width = program.width(op.partials);
    for (long row = 0; row < rows; row++) {
      const long begin = cu_vectors[op.index][first + row], end = cu_vectors[op.index][first + row + 1];
      float* at = out.row(row) + op.column;
      if (begin == end) {
        std::memset(at, 0, width * sizeof(float));
        continue;
      }
      const PoolKind kind = op.kind == CombineKind::maximum ? PoolKind::maximum : PoolKind::sum;
      kernels().combine(from.data + begin * width, end - begin, width, kind, divisor(op, from, begin, end), at);
    }
  }

  // The sum of the weights, exact in double for any text that fits in memory.
  static float divisor(const Combine& op, const Partials& from, long begin, long end) {
    double weights = 0;
    for (long p = begin; p < end; p++) {
      const double n = static_cast<double>(from.ends[p] - from.starts[p]);
      weights += n * from.first_weight[p] + from.weight_step[p] * n * (n - 1) / 2;
    }
    return static_cast<float>(op.kind == CombineKind::mean_sqrt_len ? std::sqrt(weights) : weights);
  }

  void run(const Linear& op) const {
    const LinearArgs args{matrix(op.x), matrix(op.out), optional(op.factor), optional(op.residual), op.weight, op.activation};
    kernels().linear(args, 0, rows, 0, op.weight.columns, nullptr);
  }

  void run(const Norm& op) const {
    const NormArgs args{matrix(op.x), matrix(op.out), optional(op.residual), program.width(op.x), op.kind,
                        op.weight,    op.bias,        op.eps,                op.scale};
    kernels().norm(args, 0, rows);
  }

  void run(const Normalize& op) const {
    const Matrix x = matrix(op.x), out = matrix(op.out);
    for (long row = 0; row < rows; row++) kernels().normalize(x.row(row), program.width(op.out), op.unit, out.row(row));
  }

  void run(const TanhQuantize& op) const {
    const Matrix x = matrix(op.x), out = matrix(op.out);
    for (long row = 0; row < rows; row++) kernels().tanh_quantize(x.row(row), program.width(op.x), out.row(row));
  }

  template <class BodyInstruction>
  void run(const BodyInstruction&) const {}
};

}  // namespace

void Executor::run_tail(const std::vector<Partials>& partials, const std::vector<const int64_t*>& cu_vectors, long count,
                        const Layout& layout, int threads, float* vectors) {
  const long blocks = divide_up(count, layout.rows);
  const int lanes = static_cast<int>(std::min<long>(threads, std::max(blocks / 4, 1L)));
  arena_.grow(static_cast<size_t>(lanes) * layout.bytes);
  struct Context {
    Executor* executor;
    const std::vector<Partials>& partials;
    const std::vector<const int64_t*>& cu_vectors;
    const Layout& layout;
    float* vectors;
    long count;
    int output;
    std::atomic<long> next{0};
  } context{this, partials, cu_vectors, layout, vectors, count, program_.output};
  run_on_threads(
      lanes,
      [](void* pointer, int thread) {
        Context& c = *static_cast<Context*>(pointer);
        char* arena = c.executor->arena_.data() + thread * c.layout.bytes;
        for (long first; (first = c.next.fetch_add(c.layout.rows)) < c.count;) {
          const Block block{c.executor->program_, c.partials, c.cu_vectors, c.layout, arena, c.output, c.vectors,
                            first, std::min(c.layout.rows, c.count - first)};
          for (const Instruction& instruction : c.executor->program_.instructions)
            std::visit([&](const auto& op) { block.run(op); }, instruction);
        }
      },
      &context);
}

}  // namespace longspan
