return { epoch, text(head) }
