/* cuBLAS, whose products are counted, and the driver. Declared without their arguments, which aren't read. */
#include "null.h"

#include <stdlib.h>

#define SUCCEEDS(name)                                                                                                 \
    EXPORT int name(void) { return 0; }
#define MULTIPLIES(name)                                                                                               \
    EXPORT int name(void) {                                                                                            \
        count(BLAS);                                                                                                   \
        return 0;                                                                                                      \
    }
#define GIVES(name, value)                                                                                             \
    EXPORT int name(void **found) {                                                                                    \
        *found = (void *)(value);                                                                                      \
        return 0;                                                                                                      \
    }
#define TELLS(name, type, value)                                                                                       \
    EXPORT int name(void *handle, type *found) {                                                                       \
        *found = (value);                                                                                              \
        return 0;                                                                                                      \
    }

/* --- cuBLAS */

GIVES(cublasCreate_v2, 1)
GIVES(cublasLtCreate, 1)
GIVES(cublasLtMatmulDescCreate, malloc(64))
GIVES(cublasLtMatrixLayoutCreate, malloc(64))
GIVES(cublasLtMatmulPreferenceCreate, malloc(64))
TELLS(cublasGetPointerMode_v2, int, 0)
TELLS(cublasGetMathMode, int, 0)
TELLS(cublasGetStream_v2, void *, NULL)
SUCCEEDS(cublasDestroy_v2)
SUCCEEDS(cublasSetStream_v2)
SUCCEEDS(cublasSetWorkspace_v2)
SUCCEEDS(cublasSetMathMode)
SUCCEEDS(cublasSetPointerMode_v2)
SUCCEEDS(cublasSetAtomicsMode)
SUCCEEDS(cublasLtMatmulDescDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutDestroy)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
MULTIPLIES(cublasSgemm_v2)
MULTIPLIES(cublasDgemm_v2)
MULTIPLIES(cublasSgemmEx)
MULTIPLIES(cublasGemmEx)
MULTIPLIES(cublasSgemmStridedBatched)
MULTIPLIES(cublasDgemmStridedBatched)
MULTIPLIES(cublasGemmStridedBatchedEx)
MULTIPLIES(cublasSgemv_v2)
MULTIPLIES(cublasDgemv_v2)
MULTIPLIES(cublasSdot_v2)
MULTIPLIES(cublasDdot_v2)
MULTIPLIES(cublasDotEx)
MULTIPLIES(cublasLtMatmul)

EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d,
                                          void *preference, int most, void *algorithms, int *found) {
    *found = 1;
    return 0;
}

/* --- the driver: what PyTorch links to. This library bears its name, libcuda.so.1. */

GIVES(cuCtxGetCurrent, 1)
SUCCEEDS(cuCtxSetCurrent)
SUCCEEDS(cuDeviceGet)
SUCCEEDS(cuDeviceGetAttribute)
SUCCEEDS(cuDevicePrimaryCtxGetState)
SUCCEEDS(cuDevicePrimaryCtxRetain)
SUCCEEDS(cuFuncGetAttribute)
SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig)
SUCCEEDS(cuGetErrorString)
SUCCEEDS(cuLaunchCooperativeKernel)
SUCCEEDS(cuLaunchKernel)
SUCCEEDS(cuLinkAddData_v2)
SUCCEEDS(cuLinkComplete)
SUCCEEDS(cuLinkCreate_v2)
SUCCEEDS(cuModuleGetFunction)
SUCCEEDS(cuModuleLoad)
SUCCEEDS(cuModuleLoadData)
SUCCEEDS(cuModuleLoadDataEx)
SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
SUCCEEDS(cuPointerGetAttribute)
SUCCEEDS(cuTensorMapEncodeTiled)
