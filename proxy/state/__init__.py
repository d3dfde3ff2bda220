"""What processes share: control page, stats pages, kill latch. mmap, no asyncio."""
