#pragma once

/// LibTorch's CUDA half and what of ours is linked with it, libcomba_cuda.so. Both are loaded when a GPU is asked for
/// and not before: they cost a program that runs on the CPU alone most of its start.
namespace comba {

/// Loads both, once. Throws Error(unsupported) in a build without CUDA, or where they cannot be loaded.
void load_cuda();

/// A function of libcomba_cuda.so, which load_cuda() loads first.
void* cuda_function(const char* name);

}  // namespace comba
