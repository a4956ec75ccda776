//! Reading a frame where the driver left it.

use core::{arch::asm, intrinsics::is_val_statically_known};

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use bytemuck::AnyBitPattern;
use xdp_dedup_common::{Packet, packet::MAX_OFFSET};

/// The frame that the program was called for.
pub struct Frame<'a> {
    context: &'a XdpContext,
    start: usize,
    /// End of the linear part.
    end: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        Self {
            context,
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// Length of the linear part in bytes.
    #[inline(always)]
    pub fn linear_length(&self) -> usize {
        self.end - self.start
    }
}

impl Frame<'_> {
    /// Writes three bytes at `offset`; `false` where they would leave the linear part.
    #[inline(always)]
    pub fn write(&self, offset: usize, bytes: [u8; 3]) -> bool {
        let start = self.start + offset;
        if start + size_of::<[u8; 3]>() > self.end {
            return false;
        }
        // SAFETY: as in `read`: the bytes lie in the linear part, which is this program's alone while
        // it runs.
        unsafe { (start as *mut [u8; 3]).write_unaligned(bytes) };
        true
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn read<T: AnyBitPattern>(&self, mut offset: usize) -> Option<T> {
        // Lest the compiler keeps the offset in two registers, checks one and reads by the other: the
        // verifier of Linux 6.1 does not know that they are the same.
        if !is_val_statically_known(offset) {
            // SAFETY: one operation on one register, which changes nothing.
            unsafe { asm!("{0} |= 0", inout(reg) offset, options(nomem, nostack)) };
        }
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.start + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the whole of T lies before the end of the linear part, which the verifier checks
        // again on every path here, and any bytes are a T.
        Some(unsafe { (start as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn is_linear(&self, length: usize) -> bool {
        self.start + length <= self.end
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is the one that the kernel called the program with.
        unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) as usize }
    }

    #[inline(always)]
    fn forget(mut value: usize) -> usize {
        // SAFETY: one `and` on one register. It changes nothing in a value of 17 bits, but the
        // compiler cannot know that and drop it.
        unsafe {
            asm!("{0} &= 0x1ffff", inout(reg) value, options(pure, nomem, nostack));
        }
        value
    }

    #[inline(always)]
    fn forget_constant(&self, mut value: usize) -> usize {
        // SAFETY: three operations on one register, which end with the value that it had.
        unsafe {
            asm!(
                "{0} += {1}",
                "{0} -= {1}",
                "{0} &= 0x1ffff",
                inout(reg) value,
                in(reg) self.linear_length(),
                options(pure, nomem, nostack)
            );
        }
        value
    }
}
