#include "../kernels/vector_avx512.h"

#include "../kernels/tier.h"

namespace longspan {

const Kernels kX86V4Vnni = make_kernels("v4+vnni");

}  // namespace longspan
