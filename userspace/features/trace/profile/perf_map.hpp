// SPDX-License-Identifier: GPL-2.0-only
//
// Functions that a process compiled for itself, as runtimes tell perf(1) of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace netctl::trace::profile {

class PerfMap {
  public:
    PerfMap() = default;
    /// Lines of `START SIZE NAME`, numbers in hexadecimal; others are left out. Where functions overlap, the later line is
    /// right: the code of the earlier one is gone.
    explicit PerfMap(std::string_view text);

    /// The function that an address lies in; empty if there is none.
    std::string at(std::uint64_t address) const;
    std::size_t size() const { return functions_.size(); }

  private:
    struct Function {
        std::uint64_t end = 0;
        std::string name;
    };
    std::map<std::uint64_t, Function> functions_; ///< by where they begin
};

} // namespace netctl::trace::profile
