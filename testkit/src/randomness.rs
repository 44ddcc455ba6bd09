//! The operating system's randomness, also where a library asks the kernel for it without the C library's `getrandom`.
//!
//! mad-turmoil answers `getrandom(3)`. ring draws its keys, nonces and handshake randoms through `syscall(SYS_getrandom, …)`
//! (getrandom 0.2), so that call is answered here from the same generator; every other system call goes on to the kernel.
#![expect(unsafe_code, reason = "a system call is taken over by its symbol, as the linker resolves it")]

use libc::c_long;
use rand::Rng as _;

/// Puts this file into the program: a symbol that nothing refers to would be left out by the linker.
pub fn take_over() {
    // Asking for no bytes asks whether the call is there.
    // SAFETY: no memory is passed.
    let there = unsafe { syscall(libc::SYS_getrandom, 0, 0, 0, 0, 0, 0) };
    debug_assert_eq!(there, 0, "the call is answered here");
}

/// syscall(2), with as many arguments as a call can have: on the machines here a variadic function's words are passed like these.
///
/// # Safety
/// As the system call's own.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        let length = usize::try_from(b).unwrap_or(0);
        if length > 0 {
            // SAFETY: the caller of getrandom(2) passes a buffer of `b` bytes at `a`.
            let buffer = unsafe { std::slice::from_raw_parts_mut(a as *mut u8, length) };
            mad_turmoil::rand::get_rng().fill_bytes(buffer);
        }
        return b;
    }
    // SAFETY: the caller's own.
    let result = unsafe { kernel(number, [a, b, c, d, e, f]) };
    if (-4095..0).contains(&result) {
        // SAFETY: errno's address is always valid on the calling thread.
        unsafe { *libc::__errno_location() = i32::try_from(-result).unwrap_or(libc::EINVAL) };
        return -1;
    }
    result
}

#[cfg(target_arch = "x86_64")]
unsafe fn kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the System V ABI of system calls on x86-64.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the ABI of system calls on arm64.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    result
}
