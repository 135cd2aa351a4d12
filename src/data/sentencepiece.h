#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/normalizer.h"
#include "data/piece_trie.h"
#include "data/sentencepiece_model.h"
#include "data/tokenizer_model.h"

namespace comba::data {

/// A SentencePiece model at work: the ids of SentencePiece itself for any UTF-8 text. Bytes that are no UTF-8 go to the
/// model's byte pieces when it has them, so that they survive.
class SentencePiece : public TokenizerModel {
 public:
  /// From the content of a .model file. Throws Error as parse_sentencepiece does.
  SentencePiece(std::string bytes, const std::string& where);

  std::string to_json() const override;
  std::string description() const override;
  std::int64_t vocab() const override { return num_pieces() + (model_.bos_id < 0 ? 1 : 0); }
  std::int64_t bos() const override { return model_.bos_id < 0 ? num_pieces() : model_.bos_id; }
  void append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const override;
  void append_text(std::int64_t id, std::string& text) const override;
  bool adds_leading_space() const override { return model_.add_dummy_prefix; }

 private:
  /// A stretch of the normal text and its piece, or -1 for none.
  struct Segment {
    std::string_view text;
    std::int32_t id;
  };

  std::int64_t num_pieces() const { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::size_t user_defined_length(std::string_view text) const;
  /// The segmentation of the highest sum of scores.
  std::vector<Segment> segment_unigram(std::string_view normal) const;
  /// Merges neighbours, those of the highest score first.
  std::vector<Segment> segment_bpe(std::string_view normal) const;

  std::string bytes_;
  SentencePieceModel model_;
  Normalizer normalizer_;
  PieceTrie pieces_;  // what text is made of: normal and user-defined ones
  PieceTrie user_defined_;
  float lowest_score_ = 0, highest_score_ = 0;  // of normal pieces
  std::int32_t byte_ids_[256];
};

}  // namespace comba::data
