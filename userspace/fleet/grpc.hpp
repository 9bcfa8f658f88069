// SPDX-License-Identifier: GPL-2.0-only
//
// gRPC over libcurl's HTTP/2 ("gRPC over HTTP2" of its documentation): a message is a zero byte, four bytes of length, most
// significant first, and its text; how a call ended is in the trailer `grpc-status`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl::fleet {

struct GrpcOptions {
    std::vector<std::string> urls;    ///< http://… or https://…; the first that answers
    std::string ca, certificate, key; ///< files, of https
};

class GrpcClient {
  public:
    explicit GrpcClient(GrpcOptions options) : options_(std::move(options)) {}

    /// One message there, one back of at most `most` bytes, by a fresh connection, within ten seconds.
    /// `method` is as in `etcdserverpb.KV/Range`. Errors: nobody answers, or what the server says.
    Result<std::string> call(const std::string& method, std::string_view message,
                             std::size_t most) const;

    const GrpcOptions& options() const { return options_; }

  private:
    GrpcOptions options_;
};

/// A call that is held open: some messages there at its begin, and any number back.
class GrpcStream {
  public:
    using Take = std::function<void(std::string_view message)>;

    static Result<GrpcStream> open(const GrpcOptions& options, const std::string& url,
                                   const std::string& method,
                                   const std::vector<std::string>& messages, std::size_t most,
                                   Take take);
    GrpcStream(GrpcStream&&) noexcept;
    GrpcStream& operator=(GrpcStream&&) noexcept;
    ~GrpcStream();

    /// Takes what comes, for as long, or until something has come or a signal. False: the stream is at its end.
    bool wait(unsigned milliseconds);

  private:
    struct State;
    explicit GrpcStream(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

} // namespace netctl::fleet
