// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/grpc.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include <curl/curl.h>

namespace netctl::fleet {

// Not private to this file, since GrpcStream::State has them: where a folder is one unit, that would be a warning.
struct FreeHandles {
    void operator()(CURL* one) const { curl_easy_cleanup(one); }
    void operator()(curl_slist* one) const { curl_slist_free_all(one); }
};
// CURL and CURLM are both void to the compiler.
struct FreeMulti {
    void operator()(CURLM* one) const { curl_multi_cleanup(one); }
};
using Easy = std::unique_ptr<CURL, FreeHandles>;
using Headers = std::unique_ptr<curl_slist, FreeHandles>;

namespace {

constexpr std::size_t frame_header = 5;

std::string framed(std::string_view message) {
    std::string frame(1, '\0');
    for (int shift = 24; shift >= 0; shift -= 8)
        frame += static_cast<char>(message.size() >> shift);
    return frame.append(message);
}

/// One direction of a call, as libcurl's callbacks fill it.
struct Answer {
    std::size_t most = 0;
    std::string body;
    int status = -1; ///< grpc-status; -1: none came
    std::string message;
    bool too_large = false;
};

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* to) {
    Answer& answer = *static_cast<Answer*>(to);
    const std::size_t bytes = size * count;
    if (answer.body.size() + bytes > answer.most + frame_header) {
        answer.too_large = true;
        return 0;
    }
    answer.body.append(data, bytes);
    return bytes;
}

std::size_t take_header(char* data, std::size_t size, std::size_t count, void* to) {
    Answer& answer = *static_cast<Answer*>(to);
    std::string_view line(data, size * count);
    while (line.ends_with('\n') || line.ends_with('\r'))
        line.remove_suffix(1);
    if (line.starts_with("grpc-status: ")) {
        line.remove_prefix(13);
        std::from_chars(line.data(), line.data() + line.size(), answer.status);
    } else if (line.starts_with("grpc-message: ")) {
        answer.message = line.substr(14);
    }
    return size * count;
}

/// What all calls have; the headers have to outlive the transfer.
Headers prepare(CURL* curl, const GrpcOptions& options, const std::string& url,
                const std::string& method) {
    curl_slist* list = curl_slist_append(nullptr, "content-type: application/grpc");
    list = curl_slist_append(list, "te: trailers");
    list = curl_slist_append(list, "Expect:");
    const bool tls = url.starts_with("https://");
    curl_easy_setopt(curl, CURLOPT_URL, (url + "/" + method).c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
                     tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 3000L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPINTVL, 10L);
    if (!options.ca.empty())
        curl_easy_setopt(curl, CURLOPT_CAINFO, options.ca.c_str());
    if (!options.certificate.empty())
        curl_easy_setopt(curl, CURLOPT_SSLCERT, options.certificate.c_str());
    if (!options.key.empty())
        curl_easy_setopt(curl, CURLOPT_SSLKEY, options.key.c_str());
    return Headers(list);
}

bool start_curl() {
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    return started == CURLE_OK;
}

/// The size of the message whose header this is.
std::size_t message_size(std::string_view frame) {
    std::size_t size = 0;
    for (std::size_t i = 1; i < frame_header; i++)
        size = size << 8 | static_cast<unsigned char>(frame[i]);
    return size;
}

} // namespace

Result<std::string> GrpcClient::call(const std::string& method, std::string_view message,
                                     std::size_t most) const {
    Text trouble = "no server is named";
    const std::string body = framed(message);
    for (const std::string& url : options_.urls) {
        const Easy curl(start_curl() ? curl_easy_init() : nullptr);
        if (!curl)
            return Error::failed("libcurl does not start");
        const Headers headers = prepare(curl.get(), options_, url, method);
        Answer answer;
        answer.most = most;
        curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, 10'000L);
        curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
        curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.data());
        curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, take_body);
        curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &answer);
        curl_easy_setopt(curl.get(), CURLOPT_HEADERFUNCTION, take_header);
        curl_easy_setopt(curl.get(), CURLOPT_HEADERDATA, &answer);
        const CURLcode code = curl_easy_perform(curl.get());
        if (answer.too_large)
            return Error::failed(Text::format("{}: the answer is larger than {} bytes", url, most));
        if (code != CURLE_OK || answer.status < 0) {
            trouble = Text::format("{}: {}", url,
                                   code != CURLE_OK ? curl_easy_strerror(code)
                                                    : "this is no gRPC server");
            continue;
        }
        if (answer.status == 14) { // unavailable: another may be
            trouble = Text::format("{}: {}", url, answer.message);
            continue;
        }
        if (answer.status != 0)
            return Error::failed(Text::format("{}: {}", url, answer.message));
        if (answer.body.size() < frame_header || answer.body[0] != 0 ||
            message_size(answer.body) + frame_header != answer.body.size())
            return Error::failed(Text::format("{}: the answer is cut", url));
        return answer.body.substr(frame_header);
    }
    return Error::failed(trouble);
}

struct GrpcStream::State {
    std::unique_ptr<CURLM, FreeMulti> multi;
    Easy easy;
    Headers headers;
    std::string request;
    std::size_t sent = 0;
    std::string received;
    std::size_t most = 0;
    Take take;
    bool came = false, ended = false;

    static std::size_t give(char* to, std::size_t size, std::size_t count, void* from) {
        State& state = *static_cast<State*>(from);
        const std::size_t bytes = std::min(size * count, state.request.size() - state.sent);
        if (bytes == 0)
            return CURL_READFUNC_PAUSE; // which keeps the call open
        state.request.copy(to, bytes, state.sent);
        state.sent += bytes;
        return bytes;
    }
    static std::size_t receive(char* data, std::size_t size, std::size_t count, void* to) {
        State& state = *static_cast<State*>(to);
        state.received.append(data, size * count);
        while (state.received.size() >= frame_header) {
            const std::size_t bytes = message_size(state.received);
            if (bytes > state.most)
                return 0;
            if (state.received.size() < bytes + frame_header)
                break;
            state.take(std::string_view(state.received).substr(frame_header, bytes));
            state.received.erase(0, bytes + frame_header);
            state.came = true;
        }
        return size * count;
    }
    ~State() {
        if (multi && easy)
            curl_multi_remove_handle(multi.get(), easy.get());
    }
};

GrpcStream::GrpcStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
GrpcStream::GrpcStream(GrpcStream&&) noexcept = default;
GrpcStream& GrpcStream::operator=(GrpcStream&&) noexcept = default;
GrpcStream::~GrpcStream() = default;

Result<GrpcStream> GrpcStream::open(const GrpcOptions& options, const std::string& url,
                                    const std::string& method,
                                    const std::vector<std::string>& messages, std::size_t most,
                                    Take take) {
    auto state = std::make_unique<State>();
    state->multi.reset(start_curl() ? curl_multi_init() : nullptr);
    state->easy.reset(state->multi ? curl_easy_init() : nullptr);
    if (!state->easy)
        return Error::failed("libcurl does not start");
    for (const std::string& message : messages)
        state->request += framed(message);
    state->most = most;
    state->take = std::move(take);
    CURL* const curl = state->easy.get();
    state->headers = prepare(curl, options, url, method);
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "POST");
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, State::give);
    curl_easy_setopt(curl, CURLOPT_READDATA, state.get());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, State::receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, state.get());
    curl_multi_add_handle(state->multi.get(), curl);
    return GrpcStream(std::move(state));
}

bool GrpcStream::wait(unsigned milliseconds) {
    State& state = *state_;
    state.came = false;
    int running = 0;
    if (curl_multi_perform(state.multi.get(), &running) != CURLM_OK || running == 0)
        state.ended = true;
    if (!state.ended && !state.came) {
        curl_multi_poll(state.multi.get(), nullptr, 0, static_cast<int>(milliseconds), nullptr);
        if (curl_multi_perform(state.multi.get(), &running) != CURLM_OK || running == 0)
            state.ended = true;
    }
    return !state.ended;
}

} // namespace netctl::fleet
