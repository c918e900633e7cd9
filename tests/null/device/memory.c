/* Memory and copies: both are real, in host memory. New memory is zero, as kernels don't write their results. */
#define _GNU_SOURCE
#include "null.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define SPACE ((size_t)1 << 42) /* of addresses, for each device and for pinned memory: none is used twice, so whoever
                                   uses memory after it was freed ends with SIGSEGV */
#define DEVICES 8

struct region {
    char *start;
    uint32_t *pages; /* of each allocation, by its first page */
    size_t next;     /* page */
};
static struct region regions[DEVICES + 1];
#define PINNED DEVICES

static void *reserve(size_t bytes, int access) {
    return mmap(NULL, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

__attribute__((constructor)) static void reserve_regions(void) {
    for (int i = 0; i <= DEVICES; i++) {
        regions[i].start = reserve(SPACE, PROT_NONE);
        regions[i].pages = reserve(SPACE / PAGE * sizeof(uint32_t), PROT_READ | PROT_WRITE);
    }
}

/* The number of the region of an address, -1 for ordinary host memory. */
static int region_of(const void *address) {
    for (int i = 0; i <= DEVICES; i++)
        if ((const char *)address >= regions[i].start && (const char *)address < regions[i].start + SPACE)
            return i;
    return -1;
}

static bool on_device(const void *address) {
    int region = region_of(address);
    return region >= 0 && region != PINNED;
}

static cudaError_t allocate(int number, void **address, size_t bytes) {
    *address = NULL;
    if (bytes == 0)
        return cudaSuccess;
    struct region *region = &regions[number];
    size_t pages = (bytes + PAGE - 1) / PAGE, page = __atomic_fetch_add(&region->next, pages, __ATOMIC_RELAXED);
    if (page + pages > SPACE / PAGE)
        return cudaErrorMemoryAllocation;
    char *start = region->start + page * PAGE;
    if (mprotect(start, pages * PAGE, PROT_READ | PROT_WRITE) != 0)
        return cudaErrorMemoryAllocation;
    region->pages[page] = pages;
    *address = start;
    return cudaSuccess;
}

static void release(void *address) {
    struct region *region = &regions[region_of(address)];
    size_t bytes = region->pages[((char *)address - region->start) / PAGE] * PAGE;
    mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static cudaError_t free_in_order(void *address) {
    if (address != NULL)
        submit(release, address, false);
    return cudaSuccess;
}

static int current_device(void) {
    int device;
    cudaGetDevice(&device);
    return device;
}

cudaError_t cudaMalloc(void **address, size_t bytes) { return allocate(current_device(), address, bytes); }
cudaError_t cudaMallocAsync(void **address, size_t bytes, cudaStream_t stream) { return cudaMalloc(address, bytes); }
cudaError_t cudaFree(void *address) { return free_in_order(address); }
cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) { return free_in_order(address); }
cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) { return allocate(PINNED, address, bytes); }
cudaError_t cudaMallocHost(void **address, size_t bytes) { return allocate(PINNED, address, bytes); }
cudaError_t cudaFreeHost(void *address) { return free_in_order(address); }
cudaError_t cudaHostRegister(void *address, size_t bytes, unsigned flags) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void *address) { return cudaSuccess; }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *available = *total = (size_t)64 << 30;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    int region = region_of(address);
    memset(found, 0, sizeof *found);
    if (region < 0)
        found->type = cudaMemoryTypeUnregistered;
    else if (region == PINNED)
        *found = (struct cudaPointerAttributes){.type = cudaMemoryTypeHost, .hostPointer = (void *)address};
    else
        *found = (struct cudaPointerAttributes){
            .type = cudaMemoryTypeDevice, .device = region, .devicePointer = (void *)address};
    return cudaSuccess;
}

/* --- copies */

struct copy {
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, height;
    void *staging; /* freed afterwards */
};

static void run_copy(void *argument) {
    struct copy *copy = argument;
    for (size_t row = 0; row < copy->height; row++)
        memmove(copy->to + row * copy->to_pitch, copy->from + row * copy->from_pitch, copy->width);
    free(copy->staging);
    free(copy);
}

/* Copy rows in order with all other work. Directions are those of the addresses. */
static cudaError_t copy_rows(struct copy rows, bool blocking) {
    bool from_device = on_device(rows.from), to_device = on_device(rows.to);
    count(from_device && to_device ? COPY_ON_DEVICE : to_device ? COPY_TO_DEVICE : COPY_TO_HOST);
    if (to_device && region_of(rows.from) < 0 && rows.height == 1) { /* CUDA, too, copies pageable memory at once */
        rows.staging = memcpy(malloc(rows.width), rows.from, rows.width);
        rows.from = rows.staging;
    }
    struct copy *copy = malloc(sizeof *copy);
    *copy = rows;
    long number = submit(run_copy, copy, false);
    if (blocking || region_of(rows.to) < 0) {
        count(BLOCKING_COPY);
        finish(number);
    }
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    record("copy %p\n", (void *)stream);
    return copy_rows((struct copy){to, from, 0, 0, bytes, 1, NULL}, false);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    return copy_rows((struct copy){to, from, 0, 0, bytes, 1, NULL}, true);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes,
                                cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy_rows((struct copy){to, from, to_pitch, from_pitch, width, height, NULL}, false);
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset,
                               enum cudaMemcpyKind kind) {
    return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) { return cudaMalloc(address, PAGE); }

struct fill {
    void *to;
    int value;
    size_t bytes;
};

static void run_fill(void *argument) {
    struct fill *fill = argument;
    memset(fill->to, fill->value, fill->bytes);
    free(fill);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    count(MEMSET);
    struct fill *fill = malloc(sizeof *fill);
    *fill = (struct fill){to, value, bytes};
    submit(run_fill, fill, false);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, NULL); }
