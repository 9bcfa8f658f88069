// SPDX-License-Identifier: GPL-2.0-only
//
// Names of places in the kernel's code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace netctl::sys {

/// The functions of /proc/kallsyms, read when the first is asked for.
class KernelSymbols {
  public:
    /// `file` is for tests.
    explicit KernelSymbols(std::string file = "/proc/kallsyms") : file_(std::move(file)) {}

    /// `tcp_v4_rcv+0x1c`; empty if the address is in none, or addresses are hidden from this process.
    std::string at(std::uint64_t address);

    /// The names of all of them, by their addresses; static functions may share one. Empty if addresses are hidden.
    std::vector<std::string> names();

  private:
    struct Symbol {
        std::uint64_t address = 0;
        std::string name;
    };
    void read();

    std::string file_;
    bool read_ = false;
    std::vector<Symbol> symbols_; ///< by address
};

} // namespace netctl::sys
