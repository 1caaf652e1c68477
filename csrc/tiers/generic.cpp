#include "../kernels/vector_generic.h"

#include "../kernels/tier.h"

namespace longspan {

const Kernels kGeneric = make_kernels("generic");

}  // namespace longspan
