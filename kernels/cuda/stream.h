// The type of a CUDA stream, for host headers: it lets them name a stream without including the toolkit.
// Not a wrapper: it creates and owns nothing.
#pragma once

struct CUstream_st;

namespace lomu::cuda {

/// The same type as cudaStream_t. nullptr is the default stream; in emulation, where launches are synchronous, it is
/// the only one.
using Stream = CUstream_st*;

}  // namespace lomu::cuda
