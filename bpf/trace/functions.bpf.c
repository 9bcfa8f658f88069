// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long calls of functions take, of processes and of the kernel, and what lies between two probes of a program. Each thread has a stack of the calls that it is
 * within, so that nested and recursive ones are told apart: a return belongs to the call whose place on the thread's own
 * stack is the same.
 *
 * Programs at functions of processes may be preempted by one another, and kernels from 6.13 on give programs with a stack
 * of 64 bytes and more, rounded up to 16, a private one for each CPU as if they could not. So they have 48 at most, and
 * count atomically.
 */
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <netctl/abi/trace_func.h>
#include <netctl/lib/slots.h>
#include <netctl/lib/trace_task.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u32 mode;     /* enum nc_func_mode */
const volatile __u32 group_by; /* NC_FUNC_BY_* */
const volatile __u64 slower_ns;

/* How the place of a call is known. */
enum kind {
	USER,	/* by the stack pointer; what lies below it has ended */
	TYPED,	/* by that of the trampoline's frame; interrupts have a stack elsewhere */
	MARKED, /* not at all, and it may have no end: what lies between two probes */
	PROBED, /* not at all: within one thread, calls end in the order opposite to that in which they begin */
};

struct frame {
	__u64 time;
	__u64 place;
	__u64 from; /* USER: the return address */
	__u32 function;
	__u32 reserved;
};

struct thread {
	__u32 depth;
	__u32 beyond; /* PROBED: calls under way that the stack has no room for */
	struct frame frames[NC_FUNC_DEPTH];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NC_FUNC_GROUPS);
	__type(key, struct nc_func_group);
	__type(value, struct nc_func_values);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_func_counters);
} func_counters SEC(".maps");

static const struct nc_func_values no_values;
static const __u32 zero; /* the key of arrays, which is then not on the stack */

#define ADD(where, what) __sync_fetch_and_add(&(where), what)

static __always_inline struct nc_trace_counters *totals(void)
{
	return bpf_map_lookup_elem(&counters, &zero);
}

static __noinline int count_call(struct nc_func_counters *count, struct task_struct *task,
				 __u32 function, __u64 took)
{
	struct nc_trace_counters *total = totals();
	struct nc_func_values *values;
	struct nc_func_group group;
	__u32 slot;

	group.cgroup_id = group_by & NC_FUNC_BY_CGROUP ? bpf_get_current_cgroup_id() : 0;
	group.function = group_by & NC_FUNC_BY_FUNCTION ? function : 0;
	group.id = group_by & NC_FUNC_BY_THREAD	 ? task->pid :
		   group_by & NC_FUNC_BY_PROCESS ? task->tgid :
						   0;
	values = bpf_map_lookup_elem(&groups, &group);
	if (!values) {
		bpf_map_update_elem(&groups, &group, &no_values, BPF_NOEXIST);
		values = bpf_map_lookup_elem(&groups, &group);
		if (!values) {
			ADD(count->no_group, 1);
			return 0;
		}
		values->pid = task->tgid;
		if (group_by & NC_FUNC_BY_THREAD)
			bpf_probe_read_kernel_str(values->comm, sizeof(values->comm), task->comm);
		else
			bpf_probe_read_kernel_str(values->comm, sizeof(values->comm),
						  task->group_leader->comm);
	}
	ADD(values->calls, 1);
	if (total)
		ADD(total->sent, 1);
	if (mode == NC_FUNC_CALLS)
		return 0;
	ADD(values->sum_ns, took);
	slot = nc_slot_of(took, 40);
	asm volatile("" : "+r"(slot)); /* the check is for the verifier */
	if (slot < NC_FUNC_SLOTS)
		ADD(values->slots[slot], 1);
	return 0;
}

static __always_inline int enter(enum kind kind, __u32 function, __u64 place, __u64 from)
{
	struct nc_func_counters *count = bpf_map_lookup_elem(&func_counters, &zero);
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread;
	struct frame *frame;
	__u32 depth;

	if (!count || !nc_task_selected(task))
		return 0;
	if (mode == NC_FUNC_CALLS) {
		count_call(count, task, function, 0);
		return 0;
	}
	thread = bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		ADD(count->no_thread, 1);
		return 0;
	}
	depth = thread->depth;
	/* Calls that were left by longjmp or an exception are where this one will be, or below; one that calls this as
	 * the last that it does is at the same place, and has returned to somewhere else. */
	if (kind == USER || kind == TYPED)
		for (int i = 0; i < NC_FUNC_DEPTH && depth; i++) {
			frame = &thread->frames[(depth - 1) & (NC_FUNC_DEPTH - 1)];
			if (!(kind == USER && frame->place < place) &&
			    !(frame->place == place && frame->function == function &&
			      frame->from == from))
				break;
			depth--;
			ADD(count->left, 1);
		}
	if (kind == MARKED && depth >= NC_FUNC_DEPTH) {
		ADD(count->left, depth);
		depth = 0;
	}
	if (depth >= NC_FUNC_DEPTH) {
		if (kind == PROBED)
			ADD(thread->beyond, 1);
		ADD(count->too_deep, 1);
		return 0;
	}
	/* An interrupt that comes now has calls of its own behind this one, and ends them all. */
	*(volatile __u32 *)&thread->depth = depth + 1;
	frame = &thread->frames[depth & (NC_FUNC_DEPTH - 1)];
	frame->place = place;
	frame->from = from;
	frame->function = function;
	frame->time = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void tell(struct task_struct *task, __u32 function, __u64 now, __u64 took,
				 __u32 depth, __u64 result)
{
	struct nc_trace_counters *total = totals();
	struct nc_func_call *call;

	if (!total)
		return;
	call = bpf_ringbuf_reserve(&events, sizeof(*call), 0);
	if (!call) {
		ADD(total->lost, 1);
		return;
	}
	call->time_ns = now;
	call->took_ns = took;
	call->cgroup_id = bpf_get_current_cgroup_id();
	call->result = result;
	call->function = function;
	call->tid = task->pid;
	call->depth = depth;
	call->owner.pid = task->tgid;
	bpf_probe_read_kernel_str(call->owner.comm, sizeof(call->owner.comm),
				  task->group_leader->comm);
	bpf_ringbuf_submit(call, BPF_RB_NO_WAKEUP);
	ADD(total->sent, 1);
}

static __always_inline int leave(enum kind kind, __u32 function, __u64 place, __u64 result)
{
	struct nc_func_counters *count = bpf_map_lookup_elem(&func_counters, &zero);
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 now = bpf_ktime_get_ns(), took = 0;
	struct thread *thread;
	bool found = false;
	__u32 depth, begun;

	thread = bpf_task_storage_get(&threads, task, 0, 0);
	if (!count || !thread)
		return 0;
	if (kind == PROBED && thread->beyond) {
		thread->beyond--;
		return 0;
	}
	depth = begun = thread->depth;
	for (int i = 0; i < NC_FUNC_DEPTH && depth && !found; i++) {
		const struct frame *frame = &thread->frames[--depth & (NC_FUNC_DEPTH - 1)];

		if (frame->function != function || (kind != PROBED && frame->place != place))
			continue;
		found = true;
		took = now - frame->time;
	}
	/* It began before the trace, or in a thread that was not selected then, or was too deep. */
	if (!found)
		return 0;
	if (begun - depth > 1)
		ADD(count->left, begun - depth - 1);
	*(volatile __u32 *)&thread->depth = depth;
	if (mode != NC_FUNC_EACH)
		count_call(count, task, function, took);
	else if (took >= slower_ns)
		tell(task, function, now, took, depth, result);
	return 0;
}

/* The return address is on the stack, and gone when the function has returned; or in a register. */
#if defined(__TARGET_ARCH_x86)
#define RETURN_POPS 8
#else
#define RETURN_POPS 0
#endif

SEC("uprobe")
int user_enter(struct pt_regs *ctx)
{
	__u64 place = PT_REGS_SP(ctx), from = 0;

#if defined(__TARGET_ARCH_x86)
	bpf_probe_read_user(&from, sizeof(from), (void *)place);
#else
	from = PT_REGS_RET(ctx);
#endif
	return enter(USER, bpf_get_attach_cookie(ctx), place, from);
}

SEC("uretprobe")
int user_leave(struct pt_regs *ctx)
{
	return leave(USER, bpf_get_attach_cookie(ctx), PT_REGS_SP(ctx) - RETURN_POPS,
		     PT_REGS_RC(ctx));
}

SEC("uprobe")
int mark_begin(struct pt_regs *ctx)
{
	return enter(MARKED, bpf_get_attach_cookie(ctx), 0, 0);
}

SEC("uprobe")
int mark_done(struct pt_regs *ctx)
{
	return leave(MARKED, bpf_get_attach_cookie(ctx), 0, 0);
}

SEC("kprobe")
int probe_enter(struct pt_regs *ctx)
{
	return enter(PROBED, bpf_get_attach_cookie(ctx), 0, 0);
}

SEC("kretprobe")
int probe_leave(struct pt_regs *ctx)
{
	return leave(PROBED, bpf_get_attach_cookie(ctx), 0, PT_REGS_RC(ctx));
}

/* Their functions are chosen when they are loaded; this one is in every kernel, for those who load them as they are. */
SEC("fentry/bpf_fentry_test1")
int kernel_enter(__u64 *ctx)
{
	return enter(TYPED, bpf_get_attach_cookie(ctx), (__u64)ctx, 0);
}

SEC("fexit/bpf_fentry_test1")
int kernel_leave(__u64 *ctx)
{
	__u64 result = 0;

	if (mode == NC_FUNC_EACH)
		bpf_get_func_ret(ctx, &result);
	return leave(TYPED, bpf_get_attach_cookie(ctx), (__u64)ctx, result);
}
