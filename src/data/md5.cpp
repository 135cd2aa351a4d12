#include "data/md5.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace comba::data {
namespace {

static_assert(std::endian::native == std::endian::little, "MD5 and the token files are little-endian");

constexpr int kRounds = 64;
constexpr int kRotations[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

// The RFC defines its table so: the integer part of 2^32 |sin(i + 1)|.
std::array<std::uint32_t, kRounds> make_sines() {
  std::array<std::uint32_t, kRounds> sines;
  for (int i = 0; i < kRounds; ++i) sines[i] = static_cast<std::uint32_t>(std::fabs(std::sin(i + 1.0)) * 4294967296.0);
  return sines;
}

const std::array<std::uint32_t, kRounds> kSines = make_sines();

}  // namespace

void Md5::compress(const std::uint8_t* block) {
  std::uint32_t words[16];
  std::memcpy(words, block, sizeof words);
  auto [a, b, c, d] = state_;
  for (int i = 0; i < kRounds; ++i) {
    std::uint32_t mixed;
    int word;
    switch (i / 16) {
      case 0:
        mixed = (b & c) | (~b & d);
        word = i;
        break;
      case 1:
        mixed = (d & b) | (~d & c);
        word = (5 * i + 1) % 16;
        break;
      case 2:
        mixed = b ^ c ^ d;
        word = (3 * i + 5) % 16;
        break;
      default:
        mixed = c ^ (b | ~d);
        word = (7 * i) % 16;
    }
    const std::uint32_t turned = std::rotl(a + mixed + kSines[i] + words[word], kRotations[i / 16][i % 4]);
    a = d;
    d = c;
    c = b;
    b += turned;
  }
  state_[0] += a;
  state_[1] += b;
  state_[2] += c;
  state_[3] += d;
}

void Md5::update(const void* data, std::size_t size) {
  const auto* next = static_cast<const std::uint8_t*>(data);
  std::size_t filled = size_ % 64;
  size_ += size;
  while (size > 0) {
    if (filled == 0 && size >= 64) {
      compress(next);
      next += 64;
      size -= 64;
      continue;
    }
    const std::size_t count = std::min(size, 64 - filled);
    std::memcpy(block_.data() + filled, next, count);
    next += count;
    size -= count;
    filled = (filled + count) % 64;
    if (filled == 0) compress(block_.data());
  }
}

Md5::Digest Md5::finish() {
  const std::uint64_t bits = size_ * 8;
  const std::uint8_t one = 0x80;
  const std::array<std::uint8_t, 64> zeros{};
  update(&one, 1);
  update(zeros.data(), (120 - size_ % 64) % 64);  // up to 8 bytes before the end of a block
  update(&bits, sizeof bits);
  Digest digest;
  std::memcpy(digest.data(), state_.data(), digest.size());
  return digest;
}

Md5::Digest md5(const std::string& text) {
  Md5 hash;
  hash.update(text.data(), text.size());
  return hash.finish();
}

std::string to_hex(const Md5::Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace comba::data
