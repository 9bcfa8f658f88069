// SPDX-License-Identifier: GPL-2.0-only
/*
 * Garbage collections: from the probe at their beginning to that at their end, by thread, and what the pools of a collector
 * hold before and behind. The stack is small for the reason that functions.bpf.c tells.
 */
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <netctl/abi/trace_gc.h>
#include <netctl/lib/trace_task.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_GC_SITES);
	__type(key, __u32);
	__type(value, struct nc_gc_site);
} sites SEC(".maps");

/* Of a thread that collects: a collection within another is a part of it. */
struct collecting {
	__u64 begun;
	__s64 begun_with;
	__u32 depth;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct collecting);
} threads SEC(".maps");

static const __u32 zero; /* the key of arrays, which is then not on the stack */

#define ADD(where, what) __sync_fetch_and_add(&(where), what)

static __noinline __u64 argument(struct pt_regs *ctx, const struct nc_gc_site *site, __u32 number)
{
	const struct nc_gc_argument *at;
	__u64 value = 0;

	if (!site || number >= NC_GC_ARGUMENTS || number >= site->count)
		return 0;
	at = &site->arguments[number];
	bpf_probe_read_kernel(&value, sizeof(value), (void *)ctx + at->register_offset);
	if (at->in_memory)
		bpf_probe_read_user(&value, sizeof(value), (void *)(value + at->displacement));
	value <<= at->shift & 63;
	return at->is_signed ? (__u64)((__s64)value >> (at->shift & 63)) :
			       value >> (at->shift & 63);
}

static __always_inline struct nc_gc_record *reserve(struct task_struct *task,
						    const struct nc_gc_site *site)
{
	struct nc_trace_counters *count = bpf_map_lookup_elem(&counters, &zero);
	struct nc_gc_record *record;

	if (!count)
		return NULL;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		ADD(count->lost, 1);
		return NULL;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = bpf_get_current_cgroup_id();
	record->probe = site->probe;
	record->tid = task->pid;
	record->owner.pid = task->tgid;
	bpf_probe_read_kernel_str(record->owner.comm, sizeof(record->owner.comm),
				  task->group_leader->comm);
	return record;
}

/* Counted here and not where it was reserved: clang would make one addition of both, and 6.1 forget what is not NULL. */
static __always_inline void submit(struct nc_gc_record *record)
{
	struct nc_trace_counters *count = bpf_map_lookup_elem(&counters, &zero);

	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	if (count)
		ADD(count->sent, 1);
}

static __always_inline void copy_name(char *to, __u64 from, __u64 length)
{
	asm volatile("" : "+r"(length)); /* the check is for the verifier */
	if (length > NC_GC_NAME - 1)
		length = NC_GC_NAME - 1;
	bpf_probe_read_user(to, length, (void *)from);
}

static __always_inline void begin(struct pt_regs *ctx, const struct nc_gc_site *site,
				  struct task_struct *task)
{
	struct collecting *thread =
		bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!thread) {
		struct nc_trace_counters *count = bpf_map_lookup_elem(&counters, &zero);

		if (count)
			ADD(count->no_memory, 1);
		return;
	}
	if (thread->depth++)
		return;
	thread->begun = bpf_ktime_get_ns();
	thread->begun_with = argument(ctx, site, 0);
}

static __always_inline void done(struct pt_regs *ctx, const struct nc_gc_site *site,
				 struct task_struct *task)
{
	struct collecting *thread = bpf_task_storage_get(&threads, task, 0, 0);
	struct nc_gc_record *record;

	/* It began before the trace. */
	if (!thread || !thread->depth || --thread->depth)
		return;
	record = reserve(task, site);
	if (!record)
		return;
	record->took_ns = record->time_ns - thread->begun;
	record->begun_with = thread->begun_with;
	record->ended_with = argument(ctx, site, 0);
	submit(record);
}

static __always_inline void pool(struct pt_regs *ctx, const struct nc_gc_site *site,
				 struct task_struct *task)
{
	struct nc_gc_record *record = reserve(task, site);

	if (!record)
		return;
	copy_name(record->collector, argument(ctx, site, 0), argument(ctx, site, 1));
	copy_name(record->pool, argument(ctx, site, 2), argument(ctx, site, 3));
	record->used = argument(ctx, site, 5);
	submit(record);
}

SEC("uprobe")
int on_probe(struct pt_regs *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 number = bpf_get_attach_cookie(ctx);
	const struct nc_gc_site *site = bpf_map_lookup_elem(&sites, &number);

	if (!site || !nc_task_selected(task))
		return 0;
	switch (site->probe) {
	case NC_GC_PYTHON_START:
	case NC_GC_JAVA_BEGIN:
		begin(ctx, site, task);
		break;
	case NC_GC_PYTHON_DONE:
	case NC_GC_JAVA_END:
		done(ctx, site, task);
		break;
	default:
		pool(ctx, site, task);
	}
	return 0;
}
