// SPDX-License-Identifier: GPL-2.0-only
//
// etcd as a source (etcd's API reference, v3): names below /netctl/v1/FLEET/. What a host reports is bound to a lease.
//
// A watch tells only that something may have changed; what is there is read anew each time. So nothing hangs on
// revisions: a watch that ends, history that was compacted and another cluster behind the same name are all the same.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <random>

#include "fleet/grpc.hpp"
#include "fleet/source.hpp"

namespace netctl::fleet {

class EtcdSource : public Source {
  public:
    EtcdSource(GrpcOptions options, const std::string& fleet);

    Result<std::optional<std::string>> read(const std::string& name, std::size_t most) override;
    Result<> write(const std::string& name, std::string_view bytes) override;
    Result<> update(const std::string& name, std::size_t most, const Change& change) override;
    Result<Held> hold(const std::string& task, const std::string& who) override;
    Result<> write_status(const std::string& host, std::string_view text) override;
    Result<std::vector<StatusEntry>> statuses() override;
    bool wait(unsigned milliseconds) override;
    void watch_statuses() override { watches_statuses_ = true; }
    bool prefers_compressed() const override { return true; }
    std::string name() const override { return "etcd " + prefix_; }

    /// Makes a user and a role for a host: it reads what all hosts read, and writes its own report. What is there
    /// already stays.
    Result<> enrol(const std::string& host);

  private:
    struct KeyValue {
        std::string key, value;
        std::uint64_t mod_revision = 0;
    };
    Result<std::vector<KeyValue>> range(const std::string& from, const std::string& to,
                                        std::size_t most) const;
    /// Puts it if the key's last change is still `mod_revision`; 0: if it is not there.
    Result<bool> put_if(const std::string& key, std::string_view bytes, std::uint64_t mod_revision,
                        std::uint64_t lease) const;
    Result<std::uint64_t> grant_lease(std::uint64_t seconds) const;
    /// Whether the lease was there to be kept.
    Result<bool> keep_lease(std::uint64_t lease) const;
    bool open_watch();

    GrpcClient client_;
    std::string prefix_;
    std::uint64_t status_lease_ = 0;
    std::weak_ptr<std::uint64_t> held_lease_;
    std::int64_t held_ms_ = 0; ///< when it was kept last
    std::optional<GrpcStream> watch_;
    bool watches_statuses_ = false;
    bool changed_ = false; ///< what the watch has told
    std::size_t endpoint_ = 0;
    std::int64_t retry_ms_ = 0;
    unsigned failures_ = 0;
    std::minstd_rand random_;
};

} // namespace netctl::fleet
