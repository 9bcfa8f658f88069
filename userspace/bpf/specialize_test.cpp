// SPDX-License-Identifier: GPL-2.0-only
//
// What specialize() makes of small programs, instruction by instruction. That programs still do what
// they did is shown by the prog suite, which runs nothing but specialized ones.
#include "bpf/specialize.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>
#include <linux/bpf.h>

namespace netctl::bpf {
namespace {

constexpr int constant_map = 7, other_map = 8;
constexpr std::array<std::uint32_t, 4> content{5, 0xfffffff0, 40, 0};

std::optional<std::span<const std::byte>> constants(int fd) {
    if (fd != constant_map)
        return {};
    return std::as_bytes(std::span(content));
}

bpf_insn insn(int code, unsigned to, unsigned from, int off, int imm) {
    bpf_insn made{};
    made.code = static_cast<__u8>(code);
    made.dst_reg = static_cast<__u8>(to & 0xf);
    made.src_reg = static_cast<__u8>(from & 0xf);
    made.off = static_cast<__s16>(off);
    made.imm = imm;
    return made;
}

/// reg = address of byte `offset` in a map's value
void address(std::vector<bpf_insn>& program, unsigned reg, int map, int offset) {
    program.push_back(insn(BPF_LD | BPF_IMM | BPF_DW, reg, BPF_PSEUDO_MAP_VALUE, 0, map));
    program.push_back(insn(0, 0, 0, 0, offset));
}

bpf_insn load(unsigned to, unsigned from, int off) {
    return insn(BPF_LDX | BPF_MEM | BPF_W, to, from, off, 0);
}

bool same(const bpf_insn& a, const bpf_insn& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

bpf_insn constant(unsigned reg, std::uint32_t value) {
    return insn(BPF_ALU | BPF_MOV | BPF_K, reg, 0, 0, static_cast<int>(value));
}

const bpf_insn no_operation = insn(BPF_JMP | BPF_JA, 0, 0, 0, 0);
const bpf_insn leave = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

TEST(Specialize, LoadsBecomeNumbersAndTheirAddressesGo) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 4);
    program.push_back(load(0, 1, 4));
    program.push_back(insn(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 0)); // the last use is over
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[0], no_operation));
    EXPECT_TRUE(same(program[1], no_operation));
    EXPECT_TRUE(same(program[2], constant(0, 40)));
    EXPECT_TRUE(same(program.back(), leave));
}

TEST(Specialize, OtherMapsAndWhatIsOutsideStay) {
    for (const auto& [map, off] : {std::pair{other_map, 0}, std::pair{constant_map, 16},
                                   std::pair{constant_map, 14}, std::pair{constant_map, -4}}) {
        std::vector<bpf_insn> program;
        address(program, 1, map, 0);
        program.push_back(load(0, 1, off));
        program.push_back(leave);
        const std::vector<bpf_insn> before = program;
        specialize(program, constants);
        for (std::size_t i = 0; i < program.size(); ++i)
            EXPECT_TRUE(same(program[i], before[i])) << "map " << map << ", offset " << off;
    }
}

TEST(Specialize, ArithmeticOnNumbersIsDone) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(load(2, 1, 0));                                  // 5
    program.push_back(load(3, 1, 8));                                  // 40
    program.push_back(insn(BPF_ALU64 | BPF_ADD | BPF_X, 2, 3, 0, 0));  // 45
    program.push_back(insn(BPF_ALU64 | BPF_MUL | BPF_K, 2, 0, 0, 10)); // 450
    program.push_back(insn(BPF_ALU64 | BPF_ADD | BPF_X, 4, 2, 0, 0));  // r4 is not known
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[5], constant(2, 450)));
    EXPECT_TRUE(same(program[6], insn(BPF_ALU64 | BPF_ADD | BPF_K, 4, 0, 0, 450)));
}

TEST(Specialize, NarrowArithmeticWrapsAsTheKernelsDoes) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(load(2, 1, 4)); // 0xfffffff0
    program.push_back(insn(BPF_ALU | BPF_ADD | BPF_K, 2, 0, 0, 0x20));
    program.push_back(insn(BPF_ALU64 | BPF_ADD | BPF_X, 0, 2, 0, 0));
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[4], insn(BPF_ALU64 | BPF_ADD | BPF_K, 0, 0, 0, 0x10)));
}

TEST(Specialize, NumbersBeyond31BitsAreNoImmediates) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(load(2, 1, 4)); // as an immediate, it would be sign-extended
    program.push_back(insn(BPF_ALU64 | BPF_ADD | BPF_X, 0, 2, 0, 0));
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[3], insn(BPF_ALU64 | BPF_ADD | BPF_X, 0, 2, 0, 0)));
    EXPECT_TRUE(same(program[2], constant(2, 0xfffffff0)));
}

TEST(Specialize, ShiftsBeyondTheWidthStay) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(load(2, 1, 8)); // by 40
    program.push_back(insn(BPF_ALU | BPF_RSH | BPF_X, 3, 2, 0, 0));
    program.push_back(insn(BPF_ALU64 | BPF_RSH | BPF_X, 4, 2, 0, 0));
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[3], insn(BPF_ALU | BPF_RSH | BPF_X, 3, 2, 0, 0)));
    EXPECT_TRUE(same(program[4], insn(BPF_ALU64 | BPF_RSH | BPF_K, 4, 0, 0, 40)));
}

TEST(Specialize, NothingIsKnownWhereWaysMeet) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(insn(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 1, 0)); // over the next one
    program.push_back(insn(BPF_ALU64 | BPF_MOV | BPF_X, 1, 4, 0, 0));
    program.push_back(load(0, 1, 0)); // r1 may be either
    program.push_back(leave);
    const std::vector<bpf_insn> before = program;
    specialize(program, constants);
    for (std::size_t i = 0; i < program.size(); ++i)
        EXPECT_TRUE(same(program[i], before[i])) << i;
}

TEST(Specialize, CallsForgetTheirRegistersOnly) {
    std::vector<bpf_insn> program;
    address(program, 6, constant_map, 0);
    address(program, 1, constant_map, 0);
    program.push_back(insn(BPF_JMP | BPF_CALL, 0, 0, 0, 5));
    program.push_back(load(2, 6, 0));
    program.push_back(load(3, 1, 0));
    program.push_back(leave);
    specialize(program, constants);
    EXPECT_TRUE(same(program[5], constant(2, 5)));
    EXPECT_TRUE(same(program[6], load(3, 1, 0)));
}

TEST(Specialize, AddressesThatAreStoredOrPassedStay) {
    for (const bpf_insn& use :
         {insn(BPF_STX | BPF_MEM | BPF_DW, 10, 1, -8, 0), insn(BPF_JMP | BPF_CALL, 0, 0, 0, 5)}) {
        std::vector<bpf_insn> program;
        address(program, 1, constant_map, 0);
        program.push_back(load(2, 1, 0));
        program.push_back(use);
        program.push_back(leave);
        specialize(program, constants);
        EXPECT_EQ(program[0].code, BPF_LD | BPF_IMM | BPF_DW);
        EXPECT_TRUE(same(program[2], constant(2, 5)));
    }
}

TEST(Specialize, BranchesOnNumbersAreDecided) {
    struct Case {
        int code, constant;
        bool taken;
    };
    // r2 is 0xfffffff0: a great number, and -16 in 32 bits with a sign.
    for (const Case& test :
         {Case{BPF_JMP | BPF_JEQ | BPF_K, 5, false}, Case{BPF_JMP | BPF_JNE | BPF_K, 5, true},
          Case{BPF_JMP | BPF_JGT | BPF_K, 5, true}, Case{BPF_JMP | BPF_JSLT | BPF_K, 5, false},
          Case{BPF_JMP32 | BPF_JSLT | BPF_K, 5, true}, Case{BPF_JMP | BPF_JGT | BPF_K, -1, false},
          Case{BPF_JMP32 | BPF_JEQ | BPF_K, -16, true}, Case{BPF_JMP | BPF_JEQ | BPF_K, -16, false},
          Case{BPF_JMP | BPF_JSET | BPF_K, 8, false},
          Case{BPF_JMP32 | BPF_JLE | BPF_K, -1, true}}) {
        std::vector<bpf_insn> program;
        address(program, 1, constant_map, 0);
        program.push_back(load(2, 1, 4));
        program.push_back(insn(test.code, 2, 0, 1, test.constant));
        program.push_back(insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1));
        program.push_back(leave);
        specialize(program, constants);
        const bpf_insn expected = insn(BPF_JMP | BPF_JA, 0, 0, test.taken ? 1 : 0, 0);
        EXPECT_TRUE(same(program[3], expected)) << test.code << " " << test.constant;
    }
}

TEST(Specialize, BranchesOnWhatIsNotKnownStay) {
    std::vector<bpf_insn> program;
    address(program, 1, constant_map, 0);
    program.push_back(insn(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1, 0)); // an address
    program.push_back(insn(BPF_JMP | BPF_JEQ | BPF_X, 2, 3, 0, 0)); // two registers
    program.push_back(leave);
    const std::vector<bpf_insn> before = program;
    specialize(program, constants);
    for (std::size_t i = 2; i < program.size(); ++i)
        EXPECT_TRUE(same(program[i], before[i])) << i;
}

TEST(Prune, WhatIsNeverReachedGoesAndReferencesFollow) {
    const bpf_insn one = insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
    std::vector<bpf_insn> program{
        insn(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 4, 0),               // 0: to 5
        insn(BPF_JMP | BPF_JA, 0, 0, 1, 0),                        // 1: to 3
        insn(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, 4),        // 2: never; the function at 7
        no_operation,                                              // 3
        insn(BPF_LD | BPF_IMM | BPF_DW, 2, BPF_PSEUDO_FUNC, 0, 4), // 4: the function at 9
        insn(0, 0, 0, 0, 0),                                       // 5: (its second half)
        leave,                                                     // 6
        one,   // 7: a function that nothing calls
        leave, // 8
        one,   // 9: a function
        leave, // 10
    };
    program[0].off = 5; // to 6
    const std::vector<std::int64_t> moved = prune(program);
    ASSERT_EQ(program.size(), 7U);
    EXPECT_TRUE(same(program[0], insn(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 3, 0)));
    EXPECT_EQ(program[1].off, 0); // over nothing any more
    EXPECT_TRUE(same(program[2], insn(BPF_LD | BPF_IMM | BPF_DW, 2, BPF_PSEUDO_FUNC, 0, 2)));
    EXPECT_EQ(moved[2], -1);
    EXPECT_EQ(moved[7], -1);
    EXPECT_EQ(moved[9], 5);
    prune(program);
    EXPECT_EQ(program.size(), 6U);
    EXPECT_TRUE(same(program[0], insn(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 2, 0)));
}

TEST(Prune, ABrokenProgramStaysAsItIs) {
    std::vector<bpf_insn> program{insn(BPF_JMP | BPF_JA, 0, 0, 7, 0), leave};
    const std::vector<bpf_insn> before = program;
    EXPECT_EQ(prune(program)[1], 1);
    ASSERT_EQ(program.size(), 2U);
    EXPECT_TRUE(same(program[0], before[0]));
}

} // namespace
} // namespace netctl::bpf
