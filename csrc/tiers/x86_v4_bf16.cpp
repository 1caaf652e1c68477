#include "../kernels/vector_avx512.h"

#include "../kernels/tier.h"

namespace longspan {

const Kernels kX86V4Bf16 = make_kernels("v4+bf16");

}  // namespace longspan
