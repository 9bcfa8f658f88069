// SPDX-License-Identifier: GPL-2.0-only
//
// Packets in capture files, pcap or pcapng, one after the other: what `log` and `capture` write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/command.hpp"
#include "sys/pcap.hpp"
#include "sys/pcapng.hpp"

namespace netctl::datapath {

struct PacketFileOptions {
    std::string path;                       ///< `-`: pcapng to standard output
    std::uint32_t snaplen = 0;              ///< most bytes kept of a packet
    std::optional<std::uint64_t> file_size; ///< bytes: where the next file begins
    std::uint32_t files = 10;               ///< so many are kept then: FILE, FILE.1 and so on
};

/// `--write`, `--snaplen`, `--size` and `--files`, where `what` is what is written.
std::vector<Option> packet_file_options(const std::string& what);
/// As they are given; nothing without `--write`. A packet has at most `most` bytes.
Result<std::optional<PacketFileOptions>> packet_file_of(const Arguments& arguments,
                                                        std::uint32_t most);

/// pcapng if the name ends so or is `-`, else pcap. Whoever derives from it says what files begin and end with.
class PacketFile {
  public:
    virtual ~PacketFile() = default;

    /// False: whoever read standard output is gone.
    Result<bool> write(const sys::PcapngPacket& packet);
    /// What was written is in the file afterwards. False as above.
    Result<bool> flush();
    /// Ends the file. False as above.
    Result<bool> finish();

  protected:
    /// `link` is that of all packets.
    PacketFile(PacketFileOptions options, sys::LinkType link)
        : options_(std::move(options)), link_(link) {}
    PacketFile(PacketFile&&) = default;
    PacketFile& operator=(PacketFile&&) = default;

    struct Head {
        std::string interface, description; ///< UTF-8
        std::string comment;                ///< of the section
    };
    /// Asked as a pcapng file begins.
    virtual Head head() = 0;
    struct Missing {
        std::uint64_t packets = 0; ///< that should be in the file, and are not
        std::string comment;
    };
    /// Asked as a pcapng file ends; nothing if that cannot be told.
    virtual std::optional<Missing> missing() = 0;

    /// Begins the first file. Before anything else.
    Result<> begin();

  private:
    Result<> put(const sys::PcapngPacket& packet);
    Result<> put_flush();
    Result<> end();
    Result<> rotate();
    std::uint64_t size() const;
    Result<bool> readable(Result<> written) const;

    PacketFileOptions options_;
    sys::LinkType link_;
    std::optional<std::variant<sys::PcapWriter, sys::PcapngWriter>> writer_;
    std::uint64_t written_ = 0, plain_size_ = 0;
};

} // namespace netctl::datapath
