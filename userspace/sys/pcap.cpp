// SPDX-License-Identifier: GPL-2.0-only
#include "sys/pcap.hpp"

#include <cerrno>
#include <cstdio>

#include <fmt/format.h>
#include <pcap/pcap.h>

#include "sys/input_file.hpp"

namespace netctl::sys {

namespace {
constexpr int snapshot_length = 262144;
}

void PcapReader::Close::operator()(pcap* handle) const {
    pcap_close(handle);
}

Result<PcapReader> PcapReader::open(const std::string& path) {
    char message[PCAP_ERRBUF_SIZE] = "";
    PcapReader reader;
    reader.trouble_ = std::make_unique<std::string>();
    reader.path_ = path == "-" ? "standard input" : path;
    std::FILE* file = NETCTL_TRY(open_input(path, *reader.trouble_));
    // With success libpcap owns the file.
    reader.handle_.reset(
        pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO, message));
    if (!reader.handle_) {
        std::fclose(file);
        return reader.failed(message);
    }
    return reader;
}

Error PcapReader::failed(const char* what) const {
    const std::string reason = trouble_->empty() ? what : *trouble_;
    const bool differ = reason.find("of the first interface") != std::string::npos;
    return Error::failed(fmt::format("cannot read capture {}: {}", path_, reason),
                         differ ? "make captures of one interface of it, as with tshark -r FILE -Y "
                                  "'frame.interface_id == 0' -w ONE"
                                : "");
}

LinkType PcapReader::link_type() const {
    switch (pcap_datalink(handle_.get())) {
    case DLT_EN10MB: return LinkType::ethernet;
    case DLT_RAW:
    case DLT_IPV4:
    case DLT_IPV6: return LinkType::raw_ip;
    case DLT_LINUX_SLL: return LinkType::linux_sll;
    case DLT_LINUX_SLL2: return LinkType::linux_sll2;
    case DLT_NULL:
    case DLT_LOOP: return LinkType::loopback;
    case DLT_PPP:
    case DLT_PPP_SERIAL: return LinkType::ppp;
    default: return LinkType::other;
    }
}

std::string PcapReader::link_type_name() const {
    const char* name = pcap_datalink_val_to_name(pcap_datalink(handle_.get()));
    return name ? name : "unknown";
}

Result<std::optional<CapturedFrame>> PcapReader::next() {
    pcap_pkthdr* header = nullptr;
    const u_char* data = nullptr;
    const int status = pcap_next_ex(handle_.get(), &header, &data);
    if (status == PCAP_ERROR_BREAK)
        return std::optional<CapturedFrame>();
    if (status != 1)
        return failed(pcap_geterr(handle_.get()));
    CapturedFrame frame;
    // With nanosecond precision, tv_usec counts nanoseconds.
    frame.time_ns = static_cast<std::uint64_t>(header->ts.tv_sec) * 1'000'000'000 +
                    static_cast<std::uint64_t>(header->ts.tv_usec);
    frame.length = header->len;
    frame.bytes.assign(data, data + header->caplen);
    return std::optional<CapturedFrame>(std::move(frame));
}

void PcapWriter::Close::operator()(pcap* handle) const {
    pcap_close(handle);
}

void PcapWriter::CloseDumper::operator()(pcap_dumper* dumper) const {
    pcap_dump_close(dumper);
}

Result<PcapWriter> PcapWriter::create(const std::string& path, LinkType link_type) {
    PcapWriter writer;
    writer.path_ = path;
    const int type = link_type == LinkType::raw_ip ? DLT_RAW : DLT_EN10MB;
    writer.handle_.reset(
        pcap_open_dead_with_tstamp_precision(type, snapshot_length, PCAP_TSTAMP_PRECISION_NANO));
    if (!writer.handle_)
        return Error::system(ENOMEM, "cannot make a capture file");
    writer.dumper_.reset(pcap_dump_open(writer.handle_.get(), path.c_str()));
    if (!writer.dumper_)
        return Error::failed(
            fmt::format("cannot write capture {}: {}", path, pcap_geterr(writer.handle_.get())));
    return writer;
}

Result<> PcapWriter::write(std::uint64_t time_ns, std::uint32_t length,
                           std::span<const std::uint8_t> bytes) {
    pcap_pkthdr header{};
    header.ts.tv_sec = static_cast<time_t>(time_ns / 1'000'000'000);
    header.ts.tv_usec = static_cast<suseconds_t>(time_ns % 1'000'000'000);
    header.caplen = static_cast<bpf_u_int32>(bytes.size());
    header.len = length;
    pcap_dump(reinterpret_cast<u_char*>(dumper_.get()), &header, bytes.data());
    if (std::ferror(pcap_dump_file(dumper_.get())))
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    return {};
}

Result<> PcapWriter::flush() {
    if (pcap_dump_flush(dumper_.get()) != 0)
        return Error::system(errno, fmt::format("cannot write capture {}", path_));
    return {};
}

} // namespace netctl::sys
