/* The rest of the CUDA runtime: devices, kernels (counted, not run), streams, events. */
#define _GNU_SOURCE
#include "null.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUCCEEDS(name, ...)                                                                                            \
    cudaError_t name(__VA_ARGS__) { return cudaSuccess; }

/* --- devices */

static __thread int device;

static int devices(void) {
    const char *given = getenv("NULL_DEVICES");
    return given ? atoi(given) : 1;
}

cudaError_t cudaGetDeviceCount(int *found) {
    *found = devices();
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *found) {
    *found = device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int chosen) {
    if (chosen < 0 || chosen >= devices())
        return cudaErrorInvalidDevice;
    device = chosen;
    return cudaSuccess;
}

static cudaError_t version(int *found) {
    *found = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *found) { return version(found); }
cudaError_t cudaRuntimeGetVersion(int *found) { return version(found); }

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    default:
        return "error of the null device";
    }
}

const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
SUCCEEDS(cudaGetLastError, void)
SUCCEEDS(cudaPeekAtLastError, void)

/* As those of an H100. */
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int number) {
    *found = (struct cudaDeviceProp){
        .name = "null device",
        .totalGlobalMem = (size_t)64 << 30,
        .sharedMemPerBlock = 49152,
        .sharedMemPerBlockOptin = 232448,
        .sharedMemPerMultiprocessor = 233472,
        .regsPerBlock = 65536,
        .regsPerMultiprocessor = 65536,
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .maxThreadsPerMultiProcessor = 2048,
        .maxBlocksPerMultiProcessor = 32,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {2147483647, 65535, 65535},
        .totalConstMem = 65536,
        .l2CacheSize = 50 << 20,
        .major = 9,
        .multiProcessorCount = 132,
        .textureAlignment = 512,
        .unifiedAddressing = 1,
        .concurrentKernels = 1,
        .streamPrioritiesSupported = 1,
        .canMapHostMemory = 1,
        .pciBusID = number,
    };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *found, enum cudaDeviceAttr attribute, int number) {
    static const int values[cudaDevAttrMax] = {
        [cudaDevAttrComputeCapabilityMajor] = 9,
        [cudaDevAttrMultiProcessorCount] = 132,
        [cudaDevAttrWarpSize] = 32,
        [cudaDevAttrMaxThreadsPerBlock] = 1024,
        [cudaDevAttrMaxThreadsPerMultiProcessor] = 2048,
        [cudaDevAttrMaxSharedMemoryPerBlock] = 49152,
        [cudaDevAttrMaxSharedMemoryPerBlockOptin] = 232448,
        [cudaDevAttrMaxBlockDimX] = 1024,
        [cudaDevAttrMaxBlockDimY] = 1024,
        [cudaDevAttrMaxBlockDimZ] = 64,
        [cudaDevAttrMaxGridDimX] = 2147483647,
        [cudaDevAttrMaxGridDimY] = 65535,
        [cudaDevAttrMaxGridDimZ] = 65535,
    };
    *found = values[attribute];
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *found, int length, int number) {
    snprintf(found, length, "0000:%02x:00.0", number);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *found, int number, int other) {
    *found = 1;
    return cudaSuccess;
}

SUCCEEDS(cudaDeviceEnablePeerAccess, int number, unsigned flags)
SUCCEEDS(cudaProfilerStart, void)
SUCCEEDS(cudaProfilerStop, void)

static int driver_function(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *found = (void *)driver_function;
    if (result)
        *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* --- kernels */

static cudaError_t launch(cudaStream_t stream) {
    count(LAUNCH);
    record("launch %p\n", (void *)stream);
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) {
    return launch(stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
    return launch(config->stream);
}

EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                                      cudaStream_t stream) {
    return launch(stream);
}

EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *found, const void *kernel) {
    *found = (cudaKernel_t)kernel;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    *found = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024,
                                         .numRegs = 32,
                                         .ptxVersion = 90,
                                         .binaryVersion = 90,
                                         .maxDynamicSharedSizeBytes = 49152};
    return cudaSuccess;
}

SUCCEEDS(cudaFuncSetAttribute, const void *kernel, enum cudaFuncAttribute attribute, int value)

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *found, const void *kernel, int block,
                                                                   size_t shared, unsigned flags) {
    *found = 4;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *found, const void *kernel, int block, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(found, kernel, block, shared, 0);
}

/* What the compiler has libraries call when they are loaded. */
EXPORT void **__cudaRegisterFatBinary(void *binary) {
    static void *handle;
    return &handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void **handle) {}
EXPORT void __cudaUnregisterFatBinary(void **handle) {}
EXPORT void __cudaRegisterFunction(void) {}
EXPORT void __cudaRegisterVar(void) {}

/* --- streams */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    static long last = 0x1000;
    *stream = (cudaStream_t)__atomic_add_fetch(&last, 16, __ATOMIC_RELAXED);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
SUCCEEDS(cudaStreamDestroy, cudaStream_t stream)

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
    *priority = 0;
    return cudaSuccess;
}

static cudaError_t synchronize(enum counter how) {
    count(how);
    finish(submitted());
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return synchronize(STREAM_SYNC); }
cudaError_t cudaDeviceSynchronize(void) { return synchronize(DEVICE_SYNC); }

static cudaError_t ready(long number) { return is_finished(number) ? cudaSuccess : cudaErrorNotReady; }

cudaError_t cudaStreamQuery(cudaStream_t stream) { return ready(submitted()); }

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **dependencies,
                                     const cudaGraphEdgeData **edges, size_t *count) {
    return cudaStreamIsCapturing(stream, status);
}

SUCCEEDS(cudaThreadExchangeStreamCaptureMode, enum cudaStreamCaptureMode *mode)

struct host_function {
    cudaHostFn_t run;
    void *argument;
};

static void run_host_function(void *argument) {
    struct host_function *function = argument;
    function->run(function->argument);
    free(function);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t run, void *argument) {
    struct host_function *function = malloc(sizeof *function);
    *function = (struct host_function){run, argument};
    submit(run_host_function, function, true);
    return cudaSuccess;
}

/* --- events */

struct CUevent_st {
    long number; /* of the work before it */
    cudaStream_t stream;
};

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = calloc(1, sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    *event = (struct CUevent_st){submitted(), stream};
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, 0);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    record("wait %p for %p\n", (void *)stream, (void *)event->stream);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) { return ready(event->number); }

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    count(EVENT_SYNC);
    finish(event->number);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    *milliseconds = 0.1f;
    return cudaSuccess;
}
