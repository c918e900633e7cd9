/* Shared by the parts of the null device: counters, a log of streams, and one queue of asynchronous work. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(default) /* what PyTorch calls is exported, all else is hidden */
#define __CUDA_FP16_H__              /* nccl.h needs none of these, and they need headers that no wheel contains */
#define __CUDA_BF16_H__
#define __CUDA_FP8_H__
#include <cuda_runtime_api.h>
#include <nccl.h>
#pragma GCC visibility pop

#define EXPORT __attribute__((visibility("default")))

enum counter {
    LAUNCH,
    BLAS,
    CUDNN, /* counted by null_device.py, which replaces it */
    COPY_TO_DEVICE,
    COPY_TO_HOST,
    COPY_ON_DEVICE,
    MEMSET,
    COLLECTIVE,
    DEVICE_SYNC,
    STREAM_SYNC,
    EVENT_SYNC,
    BLOCKING_COPY, /* a copy that returns when it is done */
    COUNTERS
};

void count(enum counter what);

/* Add a line to the log of streams, if it is on. */
void record(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* All streams are one queue, run in order by a thread of its own: as late as the device may (see finish), so that host
 * memory which is reused too early shows. urgent: it is run at once, e.g. since other processes wait for it.
 * Returns its number, from 1. */
long submit(void (*run)(void *), void *argument, bool urgent);

/* The number of the latest work. */
long submitted(void);

/* Wait until all work up to a number is done. */
void finish(long number);

/* Whether all work up to a number is done; if not, it is begun. */
bool is_finished(long number);
