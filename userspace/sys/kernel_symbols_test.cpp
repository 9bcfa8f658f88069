// SPDX-License-Identifier: GPL-2.0-only
#include "sys/kernel_symbols.hpp"

#include <cstdio>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

namespace netctl::sys {
namespace {

class File {
  public:
    explicit File(const std::string& text)
        : path_("/tmp/netctl-symbols-" + std::to_string(getpid())) {
        std::ofstream(path_) << text;
    }
    ~File() { std::remove(path_.c_str()); }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

TEST(KernelSymbols, TheFunctionThatAnAddressIsIn) {
    const File file(
        "ffffffff81000200 T tcp_v4_rcv\nffffffff81000100 t __do\nffffffff81000180 D data\n"
        "ffffffffc0000000 t in_module\t[veth]\nnonsense\n\n");
    KernelSymbols symbols(file.path());
    EXPECT_EQ(symbols.at(0xffffffff81000200), "tcp_v4_rcv+0x0");
    EXPECT_EQ(symbols.at(0xffffffff8100021c), "tcp_v4_rcv+0x1c");
    EXPECT_EQ(symbols.at(0xffffffff81000190), "__do+0x90");
    EXPECT_EQ(symbols.at(0xffffffffc0000001), "in_module+0x1");
    EXPECT_EQ(symbols.at(0xffffffff810000ff), "");
    EXPECT_EQ(symbols.at(0xffffffff91000200), "");
}

TEST(KernelSymbols, WhatIsHiddenIsNoName) {
    const File file("0000000000000000 T tcp_v4_rcv\n");
    EXPECT_EQ(KernelSymbols(file.path()).at(0xffffffff81000200), "");
    EXPECT_EQ(KernelSymbols("/nonexistent").at(5), "");
}

} // namespace
} // namespace netctl::sys
