// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/notify.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/fd.hpp"

namespace netctl::fleet {

void notify_systemd(const std::string& message) {
    const char* const path = std::getenv("NOTIFY_SOCKET");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::size_t size = path != nullptr ? std::strlen(path) : 0;
    if (size == 0 || size >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    std::memcpy(address.sun_path, path, size);
    if (path[0] == '@') // of the abstract namespace
        address.sun_path[0] = '\0';
    const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (socket)
        sendto(socket.get(), message.data(), message.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size));
}

unsigned watchdog_ms() {
    const char* const text = std::getenv("WATCHDOG_USEC");
    const std::string_view digits = text != nullptr ? text : "";
    std::uint64_t microseconds = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), microseconds);
    // Twice as often as it has to be.
    return static_cast<unsigned>(std::min<std::uint64_t>(microseconds / 2000, 60'000));
}

} // namespace netctl::fleet
