// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/demangle.hpp"

#include <cstdlib>
#include <cxxabi.h>
#include <memory>

namespace netctl::trace {

std::string demangled(const std::string& symbol) {
    if (!symbol.starts_with("_Z"))
        return symbol;
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(
        abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), std::free);
    return status == 0 && name ? std::string(name.get()) : symbol;
}

} // namespace netctl::trace
