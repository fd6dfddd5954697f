// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/* All programs in one object: what happens to tracked processes, and how deep their accept queues get.
 * A map of tracked processes filters in the kernel, so that an idle host stays idle. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "events.h"
#include "queue_types.h"
#include "reading_types.h"
#include "kernel_types.h"

#include "kernel_fixes.bpf.h"
#include "maps.bpf.h"
#include "lifecycle.bpf.h"
#include "oom_context.bpf.h"
#include "oom.bpf.h"
#include "signals.bpf.h"
#include "queues.bpf.h"
#include "queue_overflow.bpf.h"
#include "readings.bpf.h"

char LICENSE[] SEC("license") = "GPL";
