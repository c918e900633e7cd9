/* NCCL over a file in shared memory, NULL_NCCL_FILE: bytes are moved, asynchronously, by all processes at once.
 *
 * NULL_NCCL_FAILURE is one of
 *   start     it can't start
 *   death     rank 1 is killed while it starts
 *   reported  the death of a process is reported, as where connections break
 * Without it the others of a dead process wait, as where they share memory. */
#define _GNU_SOURCE
#include "null.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOT (1 << 20) /* bytes that a process sends at once */
#define RANKS 8

struct ncclComm {
    int size, rank;
    volatile bool aborted;
};

struct shared {
    volatile int arrived, round;
    volatile bool closed[RANKS];
    char slots[RANKS][SLOT];
};
static struct shared *shared;
static int file = -1;

static bool fails(const char *how) {
    const char *failure = getenv("NULL_NCCL_FAILURE");
    return failure && strcmp(failure, how) == 0;
}

/* Each process holds a lock on its byte of the file, which ends with it. */
static struct flock byte_of(int rank) {
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1};
}

static bool is_dead(int rank) {
    struct flock byte = byte_of(rank);
    return !shared->closed[rank] && fcntl(file, F_OFD_GETLK, &byte) == 0 && byte.l_type == F_UNLCK;
}

/* Wait for all processes. Returns false once the communicator is aborted. */
static bool meet(ncclComm_t comm) {
    int round = shared->round;
    if (__atomic_add_fetch(&shared->arrived, 1, __ATOMIC_SEQ_CST) == comm->size) {
        shared->arrived = 0;
        __atomic_store_n(&shared->round, round + 1, __ATOMIC_SEQ_CST);
    }
    while (shared->round == round && !comm->aborted)
        usleep(50);
    return shared->round != round;
}

/* --- communicators */

static void run_first_meeting(void *comm) { meet(comm); }

static ncclResult_t create(ncclComm_t *comm, int size, int rank) {
    if (fails("start"))
        return ncclSystemError;
    if (fails("death") && rank == 1)
        raise(SIGKILL);
    const char *path = getenv("NULL_NCCL_FILE");
    if (size > RANKS || (size > 1 && path == NULL))
        return ncclInvalidUsage;
    *comm = calloc(1, sizeof **comm);
    **comm = (struct ncclComm){.size = size, .rank = rank};
    if (size == 1)
        return ncclSuccess;
    if (shared == NULL) {
        file = open(path, O_RDWR | O_CREAT, 0600);
        if (file < 0 || ftruncate(file, sizeof *shared) != 0)
            return ncclSystemError;
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        struct flock byte = byte_of(rank);
        fcntl(file, F_OFD_SETLK, &byte);
    }
    finish(submit(run_first_meeting, *comm, true));
    return ncclSuccess;
}

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 7, sizeof *id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank) {
    return create(comm, size, rank);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config) {
    return create(comm, size, rank);
}

ncclResult_t ncclCommInitRankScalable(ncclComm_t *comm, int size, int rank, int ids, ncclUniqueId *id,
                                      ncclConfig_t *config) {
    return create(comm, size, rank);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *found, ncclConfig_t *config) {
    return create(found, comm->size, comm->rank);
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *size) {
    *size = comm->size;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    *error = ncclSuccess;
    for (int rank = 0; shared != NULL && fails("reported") && rank < comm->size; rank++)
        if (rank != comm->rank && is_dead(rank))
            *error = ncclRemoteError;
    return ncclSuccess;
}

static ncclResult_t leave(ncclComm_t comm) {
    if (shared != NULL)
        shared->closed[comm->rank] = true;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) { return leave(comm); }
ncclResult_t ncclCommDestroy(ncclComm_t comm) { return leave(comm); }

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    comm->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buffer, size_t bytes, void **handle) { return ncclSuccess; }
ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle) { return ncclSuccess; }
ncclResult_t ncclGroupStart(void) { return ncclSuccess; }
ncclResult_t ncclGroupEnd(void) { return ncclSuccess; }

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclSystemError:
        return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    }
}

const char *ncclGetLastError(ncclComm_t comm) {
    return "socketStartConnect: Connect to 10.0.0.7<45871> failed : Software caused connection abort";
}

/* --- collectives */

enum kind { REDUCE, BROADCAST, ALL_GATHER };

struct collective {
    enum kind kind;
    const char *from;
    char *to;
    size_t bytes; /* from each process; reduce-scatter: to each */
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int root;
    ncclComm_t comm;
};

static size_t width(ncclDataType_t type) {
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 4;
    }
}

#define ADD(type)                                                                                                      \
    for (size_t i = 0; i < bytes / sizeof(type); i++)                                                                  \
    ((type *)to)[i] += ((const type *)from)[i]

/* The sum. Other reductions, and two-byte formats, which C lacks: rank 0's values. */
static void add(char *to, const char *from, size_t bytes, ncclDataType_t type, ncclRedOp_t reduction) {
    if (reduction != ncclSum || width(type) == 2)
        return;
    if (type == ncclFloat32)
        ADD(float);
    else if (type == ncclFloat64)
        ADD(double);
    else if (width(type) == 8)
        ADD(int64_t);
    else if (width(type) == 4)
        ADD(int32_t);
    else
        ADD(int8_t);
}

/* Exchange a part that fits into a slot. Returns false once the communicator is aborted. */
static bool exchange(const struct collective *work, const char *from, char *to, size_t bytes) {
    ncclComm_t comm = work->comm;
    memcpy(shared->slots[comm->rank], from, bytes);
    if (!meet(comm))
        return false;
    if (work->kind == ALL_GATHER)
        for (int rank = 0; rank < comm->size; rank++)
            memcpy(to + rank * work->bytes, shared->slots[rank], bytes);
    else
        memcpy(to, shared->slots[work->kind == BROADCAST ? work->root : 0], bytes);
    if (work->kind == REDUCE)
        for (int rank = 1; rank < comm->size; rank++)
            add(to, shared->slots[rank], bytes, work->type, work->reduction);
    return meet(comm);
}

/* Exchange what each process contributes, in parts. */
static void exchange_all(const struct collective *work, const char *from, char *to) {
    for (size_t at = 0; at < work->bytes; at += SLOT)
        if (!exchange(work, from + at, to + at, work->bytes - at < SLOT ? work->bytes - at : SLOT))
            return;
}

static void run_collective(void *argument) {
    struct collective *work = argument;
    if (work->comm->size == 1)
        memmove(work->to, work->from, work->bytes);
    else
        exchange_all(work, work->from, work->to);
    free(work);
}

/* A reduction of each process's share, of which every process keeps its own. */
static void run_reduce_scatter(void *argument) {
    struct collective *work = argument;
    char *others = malloc(work->bytes);
    for (int rank = 0; rank < work->comm->size; rank++)
        exchange_all(work, work->from + rank * work->bytes, rank == work->comm->rank ? work->to : others);
    free(others);
    free(work);
}

static ncclResult_t begin(void (*run)(void *), struct collective work, size_t elements, cudaStream_t stream) {
    count(COLLECTIVE);
    record("collective %p\n", (void *)stream);
    struct collective *copy = malloc(sizeof *copy);
    *copy = work;
    copy->bytes = elements * width(work.type);
    submit(run, copy, true);
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t elements, ncclDataType_t type, ncclRedOp_t reduction,
                           ncclComm_t comm, cudaStream_t stream) {
    return begin(run_collective, (struct collective){REDUCE, from, to, 0, type, reduction, 0, comm}, elements, stream);
}

ncclResult_t ncclReduce(const void *from, void *to, size_t elements, ncclDataType_t type, ncclRedOp_t reduction,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(from, to, elements, type, reduction, comm, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t elements, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    return begin(run_collective, (struct collective){BROADCAST, from, to, 0, type, ncclSum, root, comm}, elements, stream);
}

ncclResult_t ncclBcast(void *buffer, size_t elements, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return ncclBroadcast(buffer, buffer, elements, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t elements, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return begin(run_collective, (struct collective){ALL_GATHER, from, to, 0, type, ncclSum, 0, comm}, elements, stream);
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t elements, ncclDataType_t type, ncclRedOp_t reduction,
                               ncclComm_t comm, cudaStream_t stream) {
    return begin(run_reduce_scatter, (struct collective){REDUCE, from, to, 0, type, reduction, 0, comm}, elements, stream);
}
