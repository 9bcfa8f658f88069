// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/probe.hpp"

#include <cerrno>
#include <memory>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "core/fd.hpp"
#include "sys/clock.hpp"

namespace netctl::fleet {

namespace {

constexpr int probe_ms = 3000;

struct FreeAddresses {
    void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
struct FreeTransfer {
    void operator()(CURL* transfer) const { curl_easy_cleanup(transfer); }
};

/// 0, or a positive errno.
int connect_within(const addrinfo& address, int milliseconds) {
    const Fd socket(::socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                             address.ai_protocol));
    if (!socket)
        return errno;
    if (connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    const std::uint64_t until = sys::now_ms() + static_cast<std::uint64_t>(milliseconds);
    for (;;) {
        const std::uint64_t now = sys::now_ms();
        pollfd ready{socket.get(), POLLOUT, 0};
        const int count = now < until ? poll(&ready, 1, static_cast<int>(until - now)) : 0;
        if (count > 0)
            break;
        if (count == 0)
            return ETIMEDOUT;
        if (errno != EINTR)
            return errno;
    }
    int code = 0;
    socklen_t size = sizeof code;
    getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &size);
    return code;
}

std::size_t discard(char*, std::size_t size, std::size_t count, void*) {
    return size * count;
}

} // namespace

Result<> probe_tcp(const std::string& host, const std::string& port) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* list = nullptr;
    if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &list); code != 0)
        return Error::failed(Text::format("{} is not found: {}", host, gai_strerror(code)));
    const std::unique_ptr<addrinfo, FreeAddresses> owned(list);
    int code = 0;
    for (const addrinfo* address = list; address != nullptr; address = address->ai_next)
        if (code = connect_within(*address, probe_ms); code == 0)
            return {};
    return Error::system(code, "no connection");
}

Result<> probe_http(const std::string& url) {
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    const std::unique_ptr<CURL, FreeTransfer> transfer(started == CURLE_OK ? curl_easy_init()
                                                                           : nullptr);
    if (!transfer)
        return Error::failed("libcurl does not start");
    CURL* const curl = transfer.get();
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(probe_ms));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, 1L << 20);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, discard);
    if (const CURLcode code = curl_easy_perform(curl); code != CURLE_OK)
        return Error::failed(Text::format("no answer: {}", curl_easy_strerror(code)));
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 399)
        return Error::failed(Text::format("the answer is {}", status));
    return {};
}

} // namespace netctl::fleet
