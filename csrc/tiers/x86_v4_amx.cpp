#include "../kernels/vector_avx512.h"

#include "../kernels/tier.h"

namespace longspan {

const Kernels kX86V4Amx = make_kernels("v4+amx");

}  // namespace longspan
