"""Linux as plain synchronous functions: the only door to system calls, netlink, cgroups and nftables."""
