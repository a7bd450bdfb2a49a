//! macOS: `libproc` and `sysctl`. Written from the documentation and not tried on a machine yet.
//!
//! There is no pidfd and no way for a process that is not the parent to learn an exit status: those functions of the
//! Linux module don't exist here, and callers must not pretend otherwise.

use super::{Instance, Stat};
use std::ffi::c_void;
use std::io;

/// Asks `proc_pidinfo` for the BSD part. `start_ticks` are microseconds since 1970 here, which identify as well.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // SAFETY: all zeros is a valid proc_bsdinfo, and its true size is passed.
    let info = unsafe {
        let mut info: libc::proc_bsdinfo = std::mem::zeroed();
        let size = size_of::<libc::proc_bsdinfo>() as i32;
        let length = libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, (&raw mut info).cast::<c_void>(), size);
        if length != size {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        info
    };
    let name: Vec<u8> = info.pbi_comm.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    Ok(Stat {
        waited_ticks: 0,
        pid,
        name: String::from_utf8_lossy(&name).into_owned(),
        state: match info.pbi_status {
            libc::SZOMB => 'Z',
            libc::SSTOP => 'T',
            _ => 'S',
        },
        ppid: info.pbi_ppid as i32,
        pgid: info.pbi_pgid as i32,
        // SAFETY: getsid takes no pointers.
        sid: unsafe { libc::getsid(pid) },
        threads: 1,
        user_ticks: 0,
        system_ticks: 0,
        start_ticks: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
    })
}

/// The environment block out of `KERN_PROCARGS2`: argc, path, padding, arguments, environment.
///
/// # Errors
/// Those of `sysctl`, `PermissionDenied` for a process of another user.
pub fn environment(pid: i32) -> io::Result<Vec<u8>> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut buffer = vec![0u8; 1 << 20];
    let mut length = buffer.len();
    // SAFETY: `name` has the three numbers announced, `buffer` the length announced.
    let result = unsafe {
        libc::sysctl(name.as_mut_ptr(), 3, buffer.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    buffer.truncate(length);
    let count = buffer.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    let rest = buffer.get(4..).unwrap_or_default();
    let path_end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let rest = &rest[path_end..];
    let padding = rest.iter().position(|&byte| byte != 0).unwrap_or(rest.len());
    let mut rest = &rest[padding..];
    for _ in 0..count {
        let end = rest.iter().position(|&byte| byte == 0).map_or(rest.len(), |end| end + 1);
        rest = &rest[end..];
    }
    Ok(rest.to_vec())
}

/// The boot session; macOS has no pid namespaces.
///
/// # Errors
/// Those of `sysctl`.
pub fn instance() -> io::Result<Instance> {
    let mut buffer = [0u8; 64];
    let mut length = buffer.len();
    // SAFETY: the name ends in NUL, `buffer` has the length announced.
    let result = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            buffer.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(Instance { boot_id: String::from_utf8_lossy(text).into_owned(), pid_namespace: 0 })
}
