#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace comba::data {

/// MD5 (RFC 1321), fed piece by piece. It names content and spreads files over splits; it protects nothing.
class Md5 {
 public:
  using Digest = std::array<std::uint8_t, 16>;

  void update(const void* data, std::size_t size);
  /// Digest of everything fed so far. Feed nothing afterwards.
  Digest finish();

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 4> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  std::array<std::uint8_t, 64> block_{};
  std::uint64_t size_ = 0;  // bytes
};

Md5::Digest md5(const std::string& text);

/// 32 lower-case hexadecimal digits.
std::string to_hex(const Md5::Digest& digest);

}  // namespace comba::data
