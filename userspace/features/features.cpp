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

Command command_table() {
    Command root{"netctl", "one command for a Linux host's eBPF datapath"};
#define X(name) root.children.push_back(name::command());
    NETCTL_FEATURES
#undef X
    return root;
}

} // namespace netctl
