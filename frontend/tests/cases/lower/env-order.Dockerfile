FROM base
ENV C=3 A=new
ENV D="x $A" E='$A' F=$B\ y G=${A}${A:+set}
ENV A=again H=$A
ENV PATH=/opt/bin:$PATH
ENV ONE=1 TWO=$ONE
ENV "quoted key"=v
ENV legacy two  words "kept" $A
