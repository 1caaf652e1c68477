#include "../kernels/vector_avx2.h"

#include "../kernels/tier.h"

namespace longspan {

const Kernels kX86V3 = make_kernels("v3");

}  // namespace longspan
