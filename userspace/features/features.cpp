// SPDX-License-Identifier: GPL-2.0-only
#include "features/features.hpp"

#include "features.inc"

namespace netctl {

#define X(name)                                                                                    \
    namespace name {                                                                               \
    const Command& command();                                                                      \
    }
NETCTL_FEATURES
#undef X

std::vector<Command> feature_commands() {
    std::vector<Command> commands;
#define X(name) commands.push_back(name::command());
    NETCTL_FEATURES
#undef X
    return commands;
}

} // namespace netctl
