//! No walk over the stack where the program has no tables for one.
//!
//! The static programs are linked without the tables that tell a frame from the next (`.cargo/layout.ld`), so
//! nothing finds a second frame in them. The standard library would bring its readers of these tables, of debug
//! information and of compressed sections along all the same, a quarter of a megabyte. Here are the twelve functions
//! through which it asks for them; with these the linker leaves out what nobody can reach. A panic's own message stays
//! whole.
#![expect(unsafe_code, reason = "a symbol of the C runtime has no safe form")]

use std::ffi::{c_int, c_void};

/// "End of stack", by the number that the ABI of unwinding gives it.
const END_OF_STACK: c_int = 5;

/// What a callback is called with, and nobody looks into here.
type Context = *mut c_void;

// SAFETY: the name and the signature are those of the ABI, which leaves it open how many frames are visited.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(
    _visit: extern "C" fn(Context, *mut c_void) -> c_int,
    _with: *mut c_void,
) -> c_int {
    END_OF_STACK
}

/// Functions that are only called where a frame is visited or unwound: never, in a program that aborts where it panics.
macro_rules! without_a_frame {
    ($(fn $name:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        // SAFETY: the name and the signature are those of the ABI, and it does not return.
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> $result {
            std::process::abort()
        }
    )*};
}

without_a_frame! {
    fn _Unwind_Resume(*mut c_void) -> !;
    fn _Unwind_GetIP(Context) -> usize;
    fn _Unwind_GetIPInfo(Context, *mut c_int) -> usize;
    fn _Unwind_GetCFA(Context) -> usize;
    fn _Unwind_GetTextRelBase(Context) -> usize;
    fn _Unwind_GetDataRelBase(Context) -> usize;
    fn _Unwind_GetRegionStart(Context) -> usize;
    fn _Unwind_GetLanguageSpecificData(Context) -> *const u8;
    fn _Unwind_FindEnclosingFunction(*mut c_void) -> *mut c_void;
    fn _Unwind_SetGR(Context, c_int, usize) -> ();
    fn _Unwind_SetIP(Context, usize) -> ();
}
