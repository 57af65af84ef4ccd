//! How much memory this process takes, as the kernel counts it.

/// Largest resident size so far in MiB (`VmHWM` of proc(5)); `None` where there is no procfs.
pub fn peak_rss_mib() -> Option<f64> {
    status_mib("VmHWM:")
}

/// Resident size now in MiB (`VmRSS` of proc(5)).
pub fn rss_mib() -> Option<f64> {
    status_mib("VmRSS:")
}

fn status_mib(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status, key)
}

fn parse(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_mebibytes() {
        let status = "Name:\tmirror\nVmPeak:\t  999 kB\nVmHWM:\t  2048 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(2.0));
        assert_eq!(parse(status, "VmSwap:"), None);
        assert!(peak_rss_mib().is_none_or(|mib| mib > 1.0));
    }
}
