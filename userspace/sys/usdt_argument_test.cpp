// SPDX-License-Identifier: GPL-2.0-only
#include "sys/usdt_argument.hpp"

#include <asm/ptrace.h>
#include <gtest/gtest.h>

namespace netctl::sys {

namespace {

TEST(UsdtArgument, OtherFormsAreNone) {
    EXPECT_TRUE(parse_usdt_arguments("")->empty());
    for (const char* text :
         {"8", "8@", "3@%rax", "@%rax", "8@%xmm0", "8@nonsense", "8@$5", "x@%rax"})
        EXPECT_FALSE(parse_usdt_arguments(text)) << text;
}

#if defined(__x86_64__)
TEST(UsdtArgument, RegistersAndMemory) {
    const auto parsed =
        parse_usdt_arguments("1@%dil -4@112(%rsp) 8@%r14 -2@%r9w 8@-8(%rbp) 4@(%rax)");
    ASSERT_TRUE(parsed);
    ASSERT_EQ(parsed->size(), 6u);
    const auto& all = *parsed;
    EXPECT_EQ(all[0].size, 1u);
    EXPECT_FALSE(all[0].is_signed || all[0].in_memory);
    EXPECT_EQ(all[0].register_offset, offsetof(pt_regs, rdi));
    EXPECT_TRUE(all[1].is_signed && all[1].in_memory);
    EXPECT_EQ(all[1].displacement, 112);
    EXPECT_EQ(all[1].register_offset, offsetof(pt_regs, rsp));
    EXPECT_EQ(all[2].register_offset, offsetof(pt_regs, r14));
    EXPECT_EQ(all[3].register_offset, offsetof(pt_regs, r9));
    EXPECT_EQ(all[4].displacement, -8);
    EXPECT_EQ(all[5].displacement, 0);
    EXPECT_TRUE(all[5].in_memory);
    for (const char* text : {"8@%r16", "8@%r7", "8@%rxx", "8@8(%rax,%rbx,4)", "8@%r9q", "8@(%rax"})
        EXPECT_FALSE(parse_usdt_arguments(text)) << text;
}
#endif

} // namespace

} // namespace netctl::sys
