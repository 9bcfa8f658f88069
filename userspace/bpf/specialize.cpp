// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/specialize.hpp"

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "core/log.hpp"

namespace netctl::bpf {

namespace {

bool is_wide_load(const bpf_insn& insn) { return insn.code == (BPF_LD | BPF_IMM | BPF_DW); }

bool is_jump_class(const bpf_insn& insn) {
    return BPF_CLASS(insn.code) == BPF_JMP || BPF_CLASS(insn.code) == BPF_JMP32;
}

bool is_call(const bpf_insn& insn) { return insn.code == (BPF_JMP | BPF_CALL); }

/// Where control may come from elsewhere: nothing is known about registers there.
std::vector<bool> jump_targets(std::span<const bpf_insn> insns) {
    std::vector<bool> targets(insns.size() + 1);
    auto mark = [&](std::size_t from, std::int64_t distance) {
        std::int64_t to = static_cast<std::int64_t>(from) + 1 + distance;
        if (to >= 0 && to < static_cast<std::int64_t>(targets.size()))
            targets[static_cast<std::size_t>(to)] = true;
    };
    for (std::size_t i = 0; i < insns.size(); ++i) {
        const bpf_insn& insn = insns[i];
        if (is_wide_load(insn)) {
            if (insn.src_reg == BPF_PSEUDO_FUNC)
                mark(i, insn.imm);
            ++i;
        } else if (is_call(insn)) {
            if (insn.src_reg == BPF_PSEUDO_CALL)
                mark(i, insn.imm);
        } else if (insn.code == (BPF_JMP32 | BPF_JA)) {
            mark(i, insn.imm);
        } else if (is_jump_class(insn) && BPF_OP(insn.code) != BPF_EXIT) {
            mark(i, insn.off);
        }
    }
    return targets;
}

/// A register that points into a constant map.
struct Pointer {
    std::span<const std::byte> content;
    std::int64_t offset;
};
using Registers = std::array<std::optional<Pointer>, 16>;

/// The immediate move that does the work of a load from `pointer`, if there is one.
std::optional<bpf_insn> as_move(const bpf_insn& load, const Pointer& pointer) {
    std::size_t size;
    switch (BPF_SIZE(load.code)) {
    case BPF_B: size = 1; break;
    case BPF_H: size = 2; break;
    case BPF_W: size = 4; break;
    default: size = 8; break;
    }
    std::int64_t at = pointer.offset + load.off;
    if (at < 0 || static_cast<std::size_t>(at) + size > pointer.content.size())
        return {};
    const std::byte* from = pointer.content.data() + at;
    std::uint64_t value = 0;
    if (size == 1) {
        value = std::to_integer<std::uint8_t>(*from);
    } else if (size == 2) {
        std::uint16_t half;
        std::memcpy(&half, from, sizeof half);
        value = half;
    } else if (size == 4) {
        std::uint32_t word;
        std::memcpy(&word, from, sizeof word);
        value = word;
    } else {
        std::memcpy(&value, from, sizeof value);
    }
    if (value > 0xffffffff)
        return {};
    bpf_insn move{};
    move.code = BPF_ALU | BPF_MOV | BPF_K; // 32 bits wide: clears the upper half
    move.dst_reg = load.dst_reg;
    move.imm = static_cast<__s32>(value);
    return move;
}

void fold_loads(std::span<bpf_insn> insns, const std::vector<bool>& targets,
                const ConstantMap& constants) {
    Registers known;
    for (std::size_t i = 0; i < insns.size(); ++i) {
        bpf_insn& insn = insns[i];
        if (targets[i])
            known.fill({});
        if (is_wide_load(insn)) {
            known[insn.dst_reg].reset();
            if (insn.src_reg == BPF_PSEUDO_MAP_VALUE)
                if (auto content = constants(insn.imm))
                    known[insn.dst_reg] = Pointer{*content, insns[i + 1].imm};
            ++i;
            continue;
        }
        switch (BPF_CLASS(insn.code)) {
        case BPF_LDX:
            if (BPF_MODE(insn.code) == BPF_MEM && known[insn.src_reg])
                if (auto move = as_move(insn, *known[insn.src_reg]))
                    insn = *move;
            known[insn.dst_reg].reset();
            break;
        case BPF_ALU64:
            if (insn.code == (BPF_ALU64 | BPF_MOV | BPF_X) && insn.off == 0)
                known[insn.dst_reg] = known[insn.src_reg];
            else if (insn.code == (BPF_ALU64 | BPF_ADD | BPF_K) && known[insn.dst_reg])
                known[insn.dst_reg]->offset += insn.imm;
            else
                known[insn.dst_reg].reset();
            break;
        case BPF_STX:
            if (BPF_MODE(insn.code) != BPF_MEM) // atomics may write back
                known.fill({});
            break;
        case BPF_ST:
            break;
        case BPF_JMP:
        case BPF_JMP32:
            if (is_call(insn))
                for (unsigned reg = 0; reg <= 5; ++reg)
                    known[reg].reset();
            break;
        default: // BPF_ALU, BPF_LD
            known.fill({});
            break;
        }
    }
}

bool reads(const bpf_insn& insn, unsigned reg) {
    switch (BPF_CLASS(insn.code)) {
    case BPF_LDX:
        return insn.src_reg == reg;
    case BPF_ALU:
    case BPF_ALU64:
        return (BPF_SRC(insn.code) == BPF_X && insn.src_reg == reg) ||
               (BPF_OP(insn.code) != BPF_MOV && insn.dst_reg == reg);
    default:
        return true; // stores, jumps, calls: not followed further
    }
}

/// Whether the register is overwritten before anything reads it, as far as the straight way shows.
bool is_unused(std::span<const bpf_insn> insns, const std::vector<bool>& targets, std::size_t i,
               unsigned reg) {
    for (; i < insns.size() && !targets[i]; ++i) {
        const bpf_insn& insn = insns[i];
        if (is_wide_load(insn)) {
            if (insn.dst_reg == reg)
                return true;
            ++i;
            continue;
        }
        unsigned kind = BPF_CLASS(insn.code);
        if (kind == BPF_ST || (kind == BPF_STX && BPF_MODE(insn.code) == BPF_MEM)) {
            if (insn.dst_reg == reg || (kind == BPF_STX && insn.src_reg == reg))
                return false;
            continue;
        }
        if (reads(insn, reg))
            return false;
        if (insn.dst_reg == reg)
            return true;
    }
    return false;
}

void drop_unused(std::span<bpf_insn> insns, const std::vector<bool>& targets,
                 const ConstantMap& constants) {
    bpf_insn nothing{};
    nothing.code = BPF_JMP | BPF_JA; // to the next instruction
    for (std::size_t i = 0; i + 1 < insns.size(); ++i) {
        if (!is_wide_load(insns[i]))
            continue;
        if (insns[i].src_reg == BPF_PSEUDO_MAP_VALUE && constants(insns[i].imm) &&
            is_unused(insns, targets, i + 2, insns[i].dst_reg))
            insns[i] = insns[i + 1] = nothing;
        ++i;
    }
}

/// Reads maps that neither the program nor anybody else can write any more.
class FrozenMaps {
  public:
    std::optional<std::span<const std::byte>> operator()(int fd) {
        auto [at, fresh] = contents_.try_emplace(fd);
        std::optional<std::vector<std::byte>>& content = at->second;
        bpf_map_info info{};
        __u32 size = sizeof info, zero = 0;
        if (fresh && bpf_map_get_info_by_fd(fd, &info, &size) == 0 &&
            info.type == BPF_MAP_TYPE_ARRAY && info.max_entries == 1 &&
            info.map_flags & BPF_F_RDONLY_PROG) {
            content.emplace(info.value_size);
            if (bpf_map_lookup_elem(fd, &zero, content->data()) != 0)
                content.reset();
        }
        if (!content)
            return {};
        return *content;
    }

  private:
    std::map<int, std::optional<std::vector<std::byte>>> contents_;
};

/// libbpf calls this when maps exist and the program's references to them are resolved.
int on_load(bpf_program* program, bpf_prog_load_opts* options, long flags) {
    options->prog_flags |= static_cast<__u32>(flags);
    std::size_t count = bpf_program__insn_cnt(program);
    std::vector<bpf_insn> insns(bpf_program__insns(program),
                                bpf_program__insns(program) + count);
    specialize(insns, FrozenMaps{});
    return bpf_program__set_insns(program, insns.data(), count);
}

} // namespace

void specialize(std::span<bpf_insn> instructions, const ConstantMap& constants) {
    const std::vector<bool> targets = jump_targets(instructions);
    fold_loads(instructions, targets, constants);
    drop_unused(instructions, targets, constants);
}

void specialize_on_load() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct Kind {
            const char* section;
            bpf_prog_type type;
            bpf_attach_type attach;
            __u32 flags;
        };
        for (const Kind& kind : {
                 Kind{"xdp", BPF_PROG_TYPE_XDP, BPF_XDP, 0},
                 Kind{"xdp.frags", BPF_PROG_TYPE_XDP, BPF_XDP, BPF_F_XDP_HAS_FRAGS},
                 Kind{"tcx/ingress", BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_INGRESS, 0},
                 Kind{"tcx/egress", BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_EGRESS, 0},
                 Kind{"tc", BPF_PROG_TYPE_SCHED_CLS, bpf_attach_type{}, 0},
             }) {
            LIBBPF_OPTS(libbpf_prog_handler_opts, options, .cookie = kind.flags,
                        .prog_prepare_load_fn = on_load);
            // Without it programs are slower, and no less right.
            if (int status = libbpf_register_prog_handler(kind.section, kind.type, kind.attach,
                                                          &options);
                status < 0)
                debug(std::string("programs of ") + kind.section + " are loaded as they are: " +
                      std::strerror(-status));
        }
    });
}

} // namespace netctl::bpf
